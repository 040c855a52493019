"""Applying edits: θ + t·ξ, several edits at once, one edit per sample, images along shifts."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import channels
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Int, Params
from navigan_jax.channels import Pixels
from navigan_jax.directions import Edit
from navigan_jax.editing.plausibility import Plausibility
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.perceptual.base import Distance, squared_norms


def apply_edit(params: Params, edit: Edit, shift: float | Float[Array, ""]) -> Params:
    """Returns θ + t·ξ; leaves that the edit does not change are the same objects as in `params`.

    shift: t, in units of ‖ξ‖; t = 0 gives θ back exactly.
    Raises: ValueError if a path is unknown or shapes differ; the message names both.
    Source: Cherepkov et al. 2021, the shifted generator G_{θ+tξ}.
    """
    for path, delta in edit.deltas.items():
        params = params_lib.add(params, path, shift * delta)
    return params


def on_device(edit: Edit) -> Edit:
    """Returns the edit as JAX arrays; worth it for an edit that is applied many times."""
    return Edit({path: jnp.asarray(delta) for path, delta in edit.deltas.items()})


def combine(edits: Sequence[Edit], shifts: Sequence[float]) -> Edit:
    """Returns Σ t_i ξ_i as one edit, to be applied with shift 1."""
    total: dict[str, Array] = {}
    for edit, shift in zip(edits, shifts, strict=True):
        for path, delta in edit.deltas.items():
            total[path] = total[path] + shift * delta if path in total else shift * delta
    return Edit(total)


def _images_of_edit(
    generator: Generator,
    params: Params,
    carry: Any,
    layers: Sequence[EditableLayer],
    edit: Edit,
    shift: Array,
) -> Images:
    """Returns the images of G_{θ+tξ} from the carry, the input of the first of the `layers`.

    Raises: ValueError if the edit changes another layer, as the carry may lie behind that layer.
    """
    others = edit.deltas.keys() - {layer.path for layer in layers}
    if others:
        raise ValueError(f"edit: changes {sorted(others)}; layers: {[x.path for x in layers]}")
    return generator.suffix(apply_edit(params, edit, shift), carry, layers)


def make_batch_editor(
    generator: Generator, layers: Sequence[EditableLayer]
) -> Callable[[Params, Float[Array, "batch latent"], Edit, Int[Array, "batch"], Array], Images]:
    """Returns (params, z, basis, index, shift) -> images, sample b edited by its own t_b ξ_{k_b}.

    basis: an edit with a leading axis of directions. index: k, [batch]. shift: t, [batch].
    Compiled; the part of the generator before the layers runs once for the batch.
    """

    @jax.jit
    def edit_batch(params: Params, z: Array, basis: Edit, index: Array, shift: Array) -> Images:
        carry = generator.prefix(params, z, layers)

        def one(carry: Any, index: Array, shift: Array) -> Array:
            edit = jax.tree.map(lambda rows: rows[index], basis)
            single = jax.tree.map(lambda leaf: leaf[None], carry)
            return _images_of_edit(generator, params, single, layers, edit, shift)[0]

        return jax.vmap(one)(carry, index, shift)

    return edit_batch


def render_shifts(
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    z: Float[Array, "samples latent"],
    edits: Sequence[Edit],
    shifts: Float[np.ndarray, "edits steps"],
    on_edit: Callable[[], None] = lambda: None,
    microbatch: int | None = None,
    largest: int | None = None,
    own: Sequence[Edit] = (),
) -> Float[np.ndarray, "edits samples steps height width channels"]:
    """Returns the images of all samples at all shifts of each edit.

    The part of the generator before the layers runs once for all edits. One compiled function
    renders every image, the originals (t = 0) included, so that a shift of 0 gives the same bits
    as the original.
    on_edit: called after each edit, for progress. microbatch: samples per call; None: all.
    largest: longest side in pixels to which images are shrunk, to save memory; None: full size.
    own: a change of the weights for each sample, which then go through the network one by one.
    """
    weights = [apply_edit(params, each, 1.0) for each in own] or [params]
    if own:
        prefix = jax.jit(lambda params, z: generator.prefix(params, z, layers))
        carries = [prefix(each, z[i : i + 1]) for i, each in enumerate(weights)]
    else:
        carries = _carries(generator, params, layers, z, microbatch)
        weights = weights * len(carries)

    @jax.jit
    def images_at(params: Params, carry: Any, edit: Edit, shift: Array) -> Images:
        images = _images_of_edit(generator, params, carry, layers, edit, shift)
        return images if largest is None else shrink(images, largest)

    frames = np.zeros(0)
    for number, (edit, row) in enumerate(zip(edits, shifts, strict=True)):
        held = on_device(edit)
        steps = [
            [
                np.asarray(images_at(each, carry, held, jnp.float32(shift)))
                for each, carry in zip(weights, carries, strict=True)
            ]
            for shift in row
        ]
        images = np.stack([np.concatenate(parts) for parts in steps], axis=1)
        if number == 0:  # allocated whole, so that no second copy of all images is made at the end
            frames = np.empty((len(edits), *images.shape), images.dtype)
        frames[number] = images
        on_edit()
    return frames


def shrink(images: Pixels, largest: int) -> Pixels:
    """Returns images averaged over squares so that the longer side is `largest` pixels at most.

    images: [*batch, height, width, channels], of NumPy or JAX; small enough images come back as
    the same array. A rim that fills no square is cut off. The colour of transparent pixels does
    not spread.
    """
    *batch, height, width, count = images.shape
    side = -(-max(height, width) // largest)
    if side == 1:
        return images
    rows, columns = height // side, width // side
    cut = channels.premultiply(images[..., : rows * side, : columns * side, :])
    mean = cut.reshape(*batch, rows, side, columns, side, count).mean(axis=(-4, -2))
    return channels.unpremultiply(mean)


def _carries(
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    z: Float[Array, "samples latent"],
    microbatch: int | None,
) -> list[Any]:
    """Returns the inputs of the layers, one per microbatch; the last may be smaller."""
    size = len(z) if microbatch is None else microbatch
    prefix = jax.jit(lambda params, z: generator.prefix(params, z, layers))
    return [prefix(params, z[start : start + size]) for start in range(0, len(z), size)]


def make_look(
    generator: Generator,
    params: Params,
    layers: Sequence[EditableLayer],
    metric: Distance,
    z: Float[Array, "samples latent"],
    plausible: Plausibility | None,
    microbatch: int | None = None,
) -> Callable[[Edit, float], tuple[float, float]]:
    """Returns (edit, shift) -> (E_z d(G_θ(z), G_{θ+tξ}(z)), out-of-distribution score), compiled.

    score: in units of its bound, see `editing.plausibility`; always 0 if `plausible` is None.
    microbatch: samples per call; None: all.
    The originals and the inputs of the layers are computed once, here; one program serves all
    edits of the layers and all shifts.
    """
    carries = _carries(generator, params, layers, z, microbatch)

    @jax.jit
    def features_at(params: Params, metric: Distance, carry: Any, edit: Edit, shift: Array) -> Any:
        images = _images_of_edit(generator, params, carry, layers, edit, shift)
        scores = jnp.zeros((len(images), 1)) if plausible is None else plausible.scores(images)
        return metric.features(images), scores

    @jax.jit
    def distances(features: Any, original: Any) -> Array:
        difference = jax.tree.map(jnp.subtract, features, original)
        return jnp.sum(squared_norms(difference), axis=0)

    def look(edit: Edit, shift: float) -> tuple[float, float]:
        found = []
        for carry, original in zip(carries, originals, strict=True):
            features, scores = features_at(params, metric, carry, edit, jnp.float32(shift))
            found.append(np.column_stack([distances(features, original), scores]))
        mean_distance, *mean_scores = np.concatenate(found).mean(axis=0)
        return float(mean_distance), float(np.max(mean_scores + correction))

    # The originals go through the same program, so that a shift of 0 has a distance of exactly 0.
    nothing = Edit({layer.path: jnp.zeros(layer.shape, z.dtype) for layer in layers})
    unchanged = [features_at(params, metric, carry, nothing, jnp.float32(0)) for carry in carries]
    originals = [features for features, _ in unchanged]
    own = np.concatenate([scores for _, scores in unchanged]).mean(axis=0)
    correction = np.zeros(1) if plausible is None else np.asarray(plausible.usual) - own
    return look
