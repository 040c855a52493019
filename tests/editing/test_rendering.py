"""Rendering: equal recipes give equal bits; moves add up; latents are mixed, then truncated."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Directions
from navigan_jax.editing import rendering
from navigan_jax.editing.edit import apply_edit
from navigan_jax.editing.recipe import Drawn, Given, Mix, Move, Recipe
from navigan_jax.editing.rendering import render
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator


def make_case(name, layers):
    """A generator, two directions in each of the layers, and the parts of a recipe."""
    generator = testing.tiny_generators()[name]
    params = testing.draw_params(generator, 0)
    digest = params_lib.digest(params)
    found = [
        draw_directions(generator.find_layers([layer])[0], digest, seed)
        for seed, layer in enumerate(layers)
    ]
    return types.SimpleNamespace(
        generator=generator,
        params=params,
        digest=digest,
        directions={directions_lib.digest(one): one for one in found},
        keys=[directions_lib.digest(one) for one in found],
    )


def draw_directions(layer, digest, seed):
    rows = np.random.RandomState(seed).standard_normal((2, *layer.shape)).astype(np.float32)
    names = ("architecture", "method", "metric", "seed", "latents", "config")
    return Directions(
        basis={layer.path: rows / 10},
        measures={"eigenvalue": np.ones(2), "residual": np.zeros(2)},
        shift_scales=np.zeros((2, 2)),
        distances=np.zeros((2, 2)),
        provenance=dict.fromkeys(names, "none") | {"digest": digest},
    )


@pytest.fixture(scope="module")
def dcgan():
    return make_case("dcgan", ["conv1", "conv0"])


@pytest.fixture(scope="module")
def stylegan2():
    return make_case("stylegan2", ["synthesis/b8/conv0/kernel", "mapping/fc0/kernel"])


def make_recipe(case, **changes):
    moves = (Move(case.keys[0], 1, 0.7), Move(case.keys[1], 0, -1.3))
    fields = {"samples": (Drawn(3, 1), Drawn(4)), "moves": moves, **changes}
    return Recipe(generator=case.digest, **fields)


def render_of(case, recipe):
    rendering.check(recipe, case.generator, case.digest, case.directions)
    return render(recipe, case.generator, case.params, case.directions)


@pytest.mark.parametrize("name", ["dcgan", "stylegan2"])
def test_images_are_those_of_the_shifted_generator(name, request):
    """Moves in two layers (one in the mapping): θ + Σ t ξ in the plain generator."""
    case = request.getfixturevalue(name)
    recipe = make_recipe(case)
    params = case.params
    for move in recipe.moves:
        params = apply_edit(params, case.directions[move.directions].edit(move.index), move.shift)
    z = np.concatenate([rendering.draw_latent(case.generator, s) for s in recipe.samples])
    plain = jax.jit(lambda p, z: case.generator.synthesize(p, case.generator.map_latent(p, z)))
    expected = plain(params, z)
    got = render_of(case, recipe)
    testing.assert_close(got, expected, 1e-5)
    other = render_of(case, recipe.original())
    assert np.max(np.abs(other - got)) > 1e-3
    np.testing.assert_array_equal(recipe.scaled(0.0).moves[0].shift, 0.0)
    np.testing.assert_array_equal(render_of(case, recipe.scaled(0.0)), other)


def test_bits_do_not_depend_on_company_or_on_where_arrays_lie(dcgan):
    """A sample alone or among others, drawn or given as numbers; weights of NumPy or of JAX."""
    recipe = make_recipe(dcgan)
    images = render_of(dcgan, recipe)
    alone = render_of(dcgan, dataclasses.replace(recipe, samples=recipe.samples[1:]))
    np.testing.assert_array_equal(alone, images[1:])
    latent = Given.of("z", rendering.draw_latent(dcgan.generator, recipe.samples[1])[0])
    given = render_of(dcgan, dataclasses.replace(recipe, samples=(latent,)))
    np.testing.assert_array_equal(given, images[1:])
    on_device = render(
        recipe,
        dcgan.generator,
        params_lib.to_device(dcgan.params),
        {
            key: dataclasses.replace(one, basis=params_lib.to_device(dict(one.basis)))
            for key, one in dcgan.directions.items()
        },
    )
    np.testing.assert_array_equal(on_device, images)


def count_stages(patch):
    """Returns the list of stages that run from here on."""
    stages, run_stage = [], rendering._run_stage

    def counted(params, carry, *, generator, stage):
        stages.append(stage)
        return run_stage(params, carry, generator=generator, stage=stage)

    patch.setattr(rendering, "_run_stage", counted)
    return stages


@pytest.mark.parametrize("name", ["dcgan", "stylegan2"])
def test_what_is_kept_changes_no_bit_and_is_not_made_again(name, request, monkeypatch):
    """Dragging in two layers, one in the mapping, runs only the stages from the dragged layer on.

    Recipes that differ earlier (sample, mix, truncation, the other shift) have different images;
    a cache key that left the difference out would fail here.
    """
    case = request.getfixturevalue(name)
    generator = case.generator
    early, late = Move(case.keys[1], 0, -1.3), Move(case.keys[0], 1, 0.7)
    (path,) = case.directions[late.directions].edit(0).deltas
    at = next(layer.stage for layer in generator.layers if layer.path == path)
    base = make_recipe(case, samples=(Drawn(3, 1),), moves=(early, late))
    recipes = {
        "drag": dataclasses.replace(base, moves=(early, dataclasses.replace(late, shift=0.9))),
        "alone": dataclasses.replace(base, moves=(late,)),
        "other shift": dataclasses.replace(base, moves=(Move(case.keys[1], 0, 1.3), late)),
        "original": base.original(),
        "sample": dataclasses.replace(base, samples=(Drawn(3, 2),)),
        "truncation": dataclasses.replace(base, truncation=0.5),
        "mix": dataclasses.replace(base, mixes=(Mix(Drawn(8), amount=0.5),)),
    }
    alone = {name: render_of(case, recipe) for name, recipe in recipes.items()}
    images = list(alone.values())
    assert all(np.any(a != b) for i, a in enumerate(images) for b in images[:i])
    kept = rendering.keep_carries(2**20)
    render(base, generator, case.params, case.directions, kept)
    stages = count_stages(monkeypatch)
    for name, recipe in recipes.items():
        stages.clear()
        got = render(recipe, generator, case.params, case.directions, kept)
        np.testing.assert_array_equal(got, alone[name])
        first = at if name == "drag" else generator.mapping_stages
        assert stages == list(range(first, generator.stages)), name


def test_one_compilation_of_each_stage_serves_all_recipes_of_a_generator(dcgan):
    render_of(dcgan, make_recipe(dcgan))
    counter = testing.TraceCounter(Generator.run_stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "run_stage", lambda *a, **k: counter(*a, **k))
        render_of(dcgan, make_recipe(dcgan, moves=(), truncation=0.5))
        render_of(dcgan, make_recipe(dcgan, samples=(Drawn(9, 70),) * 3))
    assert counter.traces == 0


@pytest.mark.parametrize(("name", "index"), [("dcgan", 63), ("stylegan2", 3), ("stylegan2", 64)])
def test_a_sample_does_not_depend_on_how_many_are_drawn(name, index):
    """It is row `index` of any draw that is long enough, labels included."""
    generator = testing.tiny_generators()[name]
    got = rendering.draw_latent(generator, Drawn(7, index))
    drawn = generator.sample_latents(jax.random.key(7), index + 1)
    np.testing.assert_array_equal(got[0], drawn[index])
    assert len(got) == 1


def _latents(recipe, case):
    """What `synthesize` gets for each sample."""
    places = range(len(recipe.samples))
    return np.stack(
        [rendering.edited_latent(recipe, place, case.generator, case.params) for place in places]
    )


def test_mixing_takes_rows_and_truncation_draws_to_the_mean(stylegan2):
    """Rows 1 and 2 go half way to the source, then ψ towards w_avg; w_plus likewise."""
    case, source = stylegan2, Drawn(8)
    recipe = make_recipe(
        case,
        moves=(),
        mixes=(Mix(source, rows=(1, 2), amount=0.5, samples=(0,)),),
        truncation=0.25,
    )
    w = [
        np.asarray(
            case.generator.map_latent(case.params, rendering.draw_latent(case.generator, sample))
        )[0]
        for sample in (*recipe.samples, source)
    ]
    mixed = w[0].copy()
    mixed[1:3] = (w[0][1:3] + w[2][1:3]) / 2
    mean = case.params["mapping"]["w_avg"]
    expected = np.stack([mean + 0.25 * (one - mean) for one in (mixed, w[1])])
    got = _latents(recipe, case)
    testing.assert_close(got, expected, 1e-5)
    given = make_recipe(case, moves=(), samples=tuple(Given.of("w_plus", one) for one in got))
    np.testing.assert_array_equal(render_of(case, given), render_of(case, recipe))


def test_truncation_of_a_latent_without_mapping_scales_it(dcgan):
    recipe = make_recipe(dcgan, moves=(), truncation=0.5)
    whole, plain = _latents(recipe.original(), dcgan), _latents(make_recipe(dcgan, moves=()), dcgan)
    np.testing.assert_array_equal(whole, plain / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": "f00"}, "expected the generator with weights of digest f00; got"),
        ({"moves": (Move("b4", 0, 1.0, "x.safetensors"),)}, r"digest b4 \(x.safetensors\); got"),
        ({"moves": "number"}, "direction: expected a number from 0 to 1; got 7"),
        ({"samples": (Given("z", (1.0,)),)}, r"z: expected numbers of shape \[7\] .*; got \[1\]"),
        ({"samples": (Given("w_plus", ((1.0,),)),)}, r"w_plus: expected numbers of shape \[7\]"),
        (
            {"mixes": (Mix(Drawn(0), rows=(0,)),)},
            r"mixes: rows: .* null \(its latent has no rows",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_one_message(dcgan, changes, message):
    if changes.get("moves") == "number":
        changes = {"moves": (Move(dcgan.keys[0], 7, 1.0),)}
    recipe = dataclasses.replace(make_recipe(dcgan), **changes)
    with pytest.raises(InputError, match=message):
        rendering.check(recipe, dcgan.generator, dcgan.digest, dcgan.directions)


def test_rows_and_weights_of_others_are_refused(stylegan2, dcgan):
    recipe = make_recipe(stylegan2, mixes=(Mix(Drawn(0), rows=(3, 4)),))
    with pytest.raises(InputError, match=r"rows of this stylegan2, 0 to 3; got \(3, 4\)"):
        rendering.check(recipe, stylegan2.generator, stylegan2.digest, stylegan2.directions)
    recipe = dataclasses.replace(make_recipe(dcgan), generator=stylegan2.digest)
    with pytest.raises(InputError, match="expected directions found in the weights"):
        rendering.check(recipe, stylegan2.generator, stylegan2.digest, dcgan.directions)
