"""`render`, the one function that makes the images of recipes.

Equal recipes give equal images to the bit, whoever calls `render`. Samples go through the network
one at a time and stage by stage; each stage is a compiled program of its own, shared by all recipes
of a generator. So the bits do not depend on the stage at which a computation begins, and stages
before the first shifted layer need not run again: while a user drags the shift of a layer, only
the stages from that layer on run.

The latent of a sample is drawn or given, mapped, mixed, and truncated towards the mean. The weights
are θ + Σ t_i ξ_i, those of the mapping included.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Params
from navigan_jax.directions import Directions, Edit
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.editing.kept import Kept, nbytes
from navigan_jax.editing.recipe import (
    Drawn,
    Given,
    Move,
    Photo,
    Recipe,
    Sample,
    misfit,
    photographs_of,
)
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.inverted import Inverted

Photographs = Mapping[str, Inverted]  # by their digests
_NO_PHOTOGRAPHS: Photographs = {}
_MEAN_LATENT = "mapping/w_avg"  # where the parameters keep the mean of w


def check(
    recipe: Recipe,
    generator: Generator,
    digest: str,
    directions: Mapping[str, Directions],
    photographs: Photographs = _NO_PHOTOGRAPHS,
) -> None:
    """Checks that `render` can make the recipe's images from these weights and directions.

    digest: of the generator's weights. directions, photographs: by their digests.
    Raises: InputError that names what does not belong together.
    """
    if recipe.generator != digest:
        raise InputError(
            f"recipe: expected the generator with weights of digest {recipe.generator}; got "
            f"{digest}; give the generator that the recipe was made with"
        )
    for move in recipe.moves:
        _find_edit(move, directions)
        of_weights = directions[move.directions].provenance["digest"]
        if of_weights != digest:
            raise InputError(
                f"recipe: expected directions found in the weights of digest {digest}; got "
                f"{move.file or 'directions'} found in {of_weights}; give directions that were "
                "found in this generator"
            )
    for photo in photographs_of(recipe):
        _find_photo(photo, photographs)
    sources = [mix.source for mix in recipe.mixes]
    for sample in (*recipe.samples, *sources):
        if isinstance(sample, Given):
            _check_given(sample, generator)
    rows = generator.latent_shape[0] if len(generator.latent_shape) == 2 else 0
    for mix in recipe.mixes:
        if mix.rows is not None and not all(row < rows for row in mix.rows):
            allowed = f"0 to {rows - 1}" if rows else "null (its latent has no rows)"
            raise misfit(
                "mixes: rows", f"rows of this {generator.architecture}, {allowed}", mix.rows
            )


def _check_given(sample: Given, generator: Generator) -> None:
    expected = generator.space.shape if sample.space == "z" else generator.latent_shape
    if np.shape(sample.values) != expected:
        raise misfit(
            sample.space,
            f"numbers of shape {list(expected)} for this {generator.architecture}",
            list(np.shape(sample.values)),
        )


def _find_edit(move: Move, directions: Mapping[str, Directions]) -> Edit:
    if move.directions not in directions:
        known = ", ".join(sorted(directions)) or "none"
        raise InputError(
            f"recipe: expected the directions of digest {move.directions} "
            f"({move.file or 'no file named'}); got {known}; give their file with "
            '--config.directions=FILE, or change "directions" of the move to the digest that '
            "python -m tools.convert_weights inspect FILE prints"
        )
    return directions[move.directions].edit(move.index)


def _find_photo(photo: Photo, photographs: Photographs) -> Inverted:
    if photo.photographs not in photographs:
        known = ", ".join(sorted(photographs)) or "none"
        raise InputError(
            f"recipe: expected the photographs of digest {photo.photographs} "
            f"({photo.file or 'no file named'}); got {known}; give their file with "
            "--config.photographs=FILE"
        )
    found = photographs[photo.photographs]
    if photo.index >= len(found):
        raise misfit("samples: index", f"a photograph from 0 to {len(found) - 1}", photo.index)
    return found


def draw_latent(generator: Generator, sample: Drawn) -> Float[np.ndarray, "1 *latent"]:
    """Returns z of a drawn sample."""
    return np.asarray(generator.space.draw(jax.random.key(sample.seed), sample.index))


@functools.partial(jax.jit, static_argnames="generator")
def _map_one(params: Params, z: Array, *, generator: Generator) -> Array:
    return generator.map_latent(params, z)


@functools.partial(jax.jit, static_argnames=("generator", "stage"))
def _run_stage(params: Params, carry: Any, *, generator: Generator, stage: int) -> Any:
    return generator.run_stage(params, carry, stage)


def edited_params(recipe: Recipe, params: Params, directions: Mapping[str, Directions]) -> Params:
    """Returns θ + Σ t_i ξ_i, or `params` itself if no shift differs from 0.

    Raises: InputError for unknown directions.
    """
    moves = [move for move in recipe.moves if move.shift]
    edits = [_find_edit(move, directions) for move in moves]
    total = combine(edits, [move.shift for move in moves])
    return apply_edit(params, total, 1.0) if moves else params


def own_params(sample: Sample, params: Params, photographs: Photographs) -> Params:
    """Returns the weights with the change that belongs to a photograph; θ for other samples."""
    if not isinstance(sample, Photo):
        return params
    found = _find_photo(sample, photographs)
    return apply_edit(params, found.edit(sample.index), 1.0)


def edited_latent(
    recipe: Recipe,
    place: int,
    generator: Generator,
    params: Params,
    photographs: Photographs = _NO_PHOTOGRAPHS,
) -> Float[np.ndarray, "..."]:
    """Returns the input of `synthesize` for one sample: mapped, mixed and truncated.

    params: the edited weights, as an edit of the mapping changes the latents.
    """
    latent = _latent(recipe.samples[place], generator, params, photographs)
    for mix in recipe.mixes_of(place):
        source = _latent(mix.source, generator, params, photographs)
        rows = slice(None) if mix.rows is None else list(mix.rows)
        mixed = latent.copy()
        mixed[rows] += np.float32(mix.amount) * (source[rows] - latent[rows])
        latent = mixed
    if recipe.truncation != 1:
        latent = _truncate(latent, recipe.truncation, generator, params)
    return latent


def _latent(
    sample: Sample, generator: Generator, params: Params, photographs: Photographs
) -> np.ndarray:
    if isinstance(sample, Photo):
        found = _find_photo(sample, photographs)
        sample = Given.of(found.space, found.latents[sample.index])
    if isinstance(sample, Given) and sample.space == "w_plus":
        return np.asarray(sample.values, np.float32)
    if isinstance(sample, Given):
        z = np.asarray([sample.values], np.float32)
    else:
        z = draw_latent(generator, sample)
    return np.asarray(_map_one(params, z, generator=generator))[0]


def _truncate(
    latent: np.ndarray, factor: float, generator: Generator, params: Params
) -> np.ndarray:
    """Returns the latent moved to the mean of w, or to that of z in a generator without w."""
    if not generator.mapping_stages:
        return np.asarray(generator.space.truncate(jnp.asarray(latent), factor))
    mean = np.asarray(params_lib.get(params, _MEAN_LATENT), np.float32)
    return mean + np.float32(factor) * (latent - mean)


def keep_carries(most: int) -> Kept[Any]:
    """Returns a cache for `render` of at most that many bytes: latents and inputs of stages."""
    return Kept(most, nbytes)


def render(
    recipe: Recipe,
    generator: Generator,
    params: Params,
    directions: Mapping[str, Directions],
    kept: Kept[Any] | None = None,
    photographs: Photographs = _NO_PHOTOGRAPHS,
) -> Float[np.ndarray, "samples height width channels"]:
    """Returns the images of the recipe, nominally in [-1, 1]; equal recipes give equal bits.

    params: θ, the weights of the recipe's generator; on the device, for many calls. directions: by
    their digests. kept: a cache from `keep_carries`, for many recipes of one generator and θ; it
    holds latents and the inputs of stages with shifted weights. Each stage compiles once for a
    generator, for all recipes.
    photographs: by their digests, for samples that are photographs.
    Only missing directions and photographs are noticed here: call `check` first.
    """
    kept = keep_carries(0) if kept is None else kept
    shifted = edited_params(recipe, params, directions)
    stages = {layer.path: layer.stage for layer in generator.layers}
    first = {
        move: min(stages.get(path, 0) for path in _find_edit(move, directions).deltas)
        for move in recipe.moves
        if move.shift
    }
    images = [
        _render_one(recipe, place, generator, shifted, first, kept, photographs)
        for place in range(len(recipe.samples))
    ]
    return np.concatenate([np.asarray(image) for image in images])


def _render_one(
    recipe: Recipe,
    place: int,
    generator: Generator,
    shifted: Params,
    first: Mapping[Move, int],
    kept: Kept[Any],
    photographs: Photographs,
) -> Array:
    """Returns the image [1, height, width, channels] of a sample.

    first: the first stage that each move changes.
    """
    mixes = recipe.mixes_of(place)
    shifted = own_params(recipe.samples[place], shifted, photographs)
    begin = generator.mapping_stages

    def key(stage: int) -> Any:
        """Returns the cache key of a stage's input: everything that the input depends on."""
        before = [(m.directions, m.index, m.shift) for m, at in first.items() if at < stage]
        return stage, recipe.samples[place], mixes, recipe.truncation, *before

    cuts = sorted({begin, *(stage for stage in first.values() if stage > begin)})
    for stage in reversed(cuts):
        if (carry := kept.find(key(stage))) is not None:
            begin = stage
            break
    else:
        carry = jnp.asarray(edited_latent(recipe, place, generator, shifted, photographs)[None])
        kept.keep(key(begin), carry)
    for stage in range(begin, generator.stages):
        if stage > begin and stage in cuts:
            kept.keep(key(stage), carry)
        carry = _run_stage(shifted, carry, generator=generator, stage=stage)
    return carry
