import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.errors import InputError
from navigan_jax.inversion import coarse, codes, fit, likeness, objective, trust_region, tuning
from tests.inversion.toy import LINEAR, STYLES, images_of_z, own_image, problem_of, styles_params

images_of, distance = jax.jit(objective.images_of), jax.jit(objective.distance)
NO_TUNING = tuning.Settings(steps=0)


@pytest.fixture(scope="module")
def params():
    return styles_params()


@pytest.fixture(scope="module")
def own(params):
    """The problem of an image that the generator made itself."""
    return problem_of(STYLES, params, own_image(STYLES, params))


@pytest.fixture(scope="module")
def foreign(params):
    """The problem of an image that it cannot make."""
    image = 1.3 * own_image(STYLES, params, seed=6)[:, ::-1]
    return problem_of(STYLES, params, image, usual=1e-3)


@pytest.fixture(scope="module")
def solver():
    return coarse.make_solver()


def mean_of(problem):
    return codes.mean_code(problem.spread, codes.code_shape(problem.generator, problem.space))


def last(states):
    return list(states)[-1]


def run(problem, steps, solver, *, tune=NO_TUNING, saved=None, noise=False):
    settings = fit.Settings(steps, tune, noise)
    return list(fit.run(problem, settings, mean_of(problem), jax.random.key(0), solver, saved))


def test_own_image_is_recovered(own, solver):
    state = last(run(own, 150, solver))
    image = images_of(own, state.found.code, {})
    error = likeness.mean_square(image, own.image)
    assert error < 1e-3 * float(np.var(own.image))


def test_every_method_comes_nearer(foreign, solver):
    start = float(distance(foreign, images_of(foreign, mean_of(foreign), {})))
    for using in (solver, None):
        state = last(run(foreign, 20, using))
        image = images_of(foreign, state.found.code, {})
        assert float(distance(foreign, image)) < 0.9 * start


def test_weight_keeps_codes_usual(foreign, solver):
    kept = dataclasses.replace(foreign, usual=jnp.float32(10.0))
    found = [last(run(problem, 40, solver)).found.code for problem in (foreign, kept)]
    free, near = (float(jnp.mean(foreign.spread.whiten(code) ** 2)) for code in found)
    assert near < 0.1 * free


@pytest.mark.parametrize("with_solver", [True, False])
def test_resumed_run_has_the_same_bits(foreign, solver, with_solver):
    using = solver if with_solver else None
    options = {"tune": tuning.Settings(steps=4, rate=1e-2, rank=2), "noise": not with_solver}
    whole = run(foreign, 8, using, **options)
    for place in (2, len(whole) - 3):
        saved = params_lib.unflatten(
            {
                k: np.array(v)
                for k, v in params_lib.flatten(whole_at(foreign, using, options, place)).items()
            }
        )
        state = last(run(foreign, 8, using, saved=saved, **options))
        expected = whole[-1].to_arrays()
        for path, leaf in params_lib.flatten(state.to_arrays()).items():
            np.testing.assert_array_equal(leaf, params_lib.flatten(expected)[path], err_msg=path)


def whole_at(problem, solver, options, place):
    """The arrays of the state at a place; taken while it lives, as later steps take its memory."""
    settings = fit.Settings(8, options["tune"], options["noise"])
    states = fit.run(problem, settings, mean_of(problem), jax.random.key(0), solver)
    for number, state in enumerate(states):
        if number == place:
            return state.to_arrays()
    raise AssertionError("no such state")


def moved(point, towards, step):
    """The point, moved by `step` times another."""
    return jax.tree.map(lambda x, v: x + step * v, point, towards)


@pytest.mark.parametrize("space", ["w", "z"])
def test_gradient_is_that_of_finite_differences(params, space):
    with testing.x64():
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        image = np.asarray(own_image(STYLES, double), np.float64)
        problem = problem_of(STYLES, double, image, space=space, usual=0.5)
        shape = (1, *codes.code_shape(STYLES, space))
        noise = objective.noise_maps(STYLES, double)
        point = (jax.random.normal(jax.random.key(1), shape, jnp.float64), noise)

        @jax.jit
        def loss(point):
            code, maps = point
            value = objective.distance(problem, objective.images_of(problem, code, maps))
            value += objective.unusual(problem, code)
            return value + 10 * objective.noise_correlation(maps)

        towards = testing.normal_like(2, point)
        slope = sum(
            jnp.vdot(a, b)
            for a, b in zip(
                jax.tree.leaves(jax.jit(jax.grad(loss))(point)),
                jax.tree.leaves(towards),
                strict=True,
            )
        )
        ends = [loss(moved(point, towards, step)) for step in (1e-6, -1e-6)]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6)


def test_no_tuning_gives_the_bits_of_the_reconstruction(foreign):
    state = tuning.begin(STYLES, foreign.params, 2, jax.random.key(0))
    nothing = tuning.change_of(foreign.params, state.factors)
    tuned = apply_edit(foreign.params, Edit(nothing), 1.0)
    for path, leaf in params_lib.flatten(tuned).items():
        np.testing.assert_array_equal(leaf, params_lib.get(foreign.params, path))


def test_tuning_meets_the_image(foreign, solver):
    settings = tuning.Settings(steps=40, rate=3e-3, until=0.0)
    state = last(run(foreign, 30, solver, tune=settings))
    changes = fit.changes_of(foreign, state)
    assert set(changes) == set(tuning.tuned_paths(STYLES))
    before = images_of(foreign, state.found.code, {})
    shifted = dataclasses.replace(foreign, params=apply_edit(foreign.params, Edit(changes), 1.0))
    after = images_of(shifted, state.found.code, {})
    errors = [likeness.mean_square(image, foreign.image) for image in (before, after)]
    assert errors[1] < 0.6 * errors[0]


def test_tuning_ends_at_the_distance_that_is_asked(foreign, solver):
    states = run(foreign, 5, solver, tune=tuning.Settings(steps=50, until=1e6))
    assert sum(state.tuned is not None for state in states) == 1
    assert states[-1].is_done


def test_rank_bounds_the_change(foreign, solver):
    settings = tuning.Settings(steps=3, rate=1e-2, until=0.0, rank=1)
    changes = fit.changes_of(foreign, last(run(foreign, 2, solver, tune=settings)))
    for path, delta in changes.items():
        values = np.linalg.svd(np.asarray(delta).reshape(-1, delta.shape[-1]), compute_uv=False)
        assert values[0] > 0, path
        assert (values[1:] < 1e-5 * values[0]).all(), path


def test_locality_keeps_other_images(foreign, solver):
    z = STYLES.sample_latents(jax.random.key(8), 8)
    w_plus = codes.code_of(foreign.params, z, generator=STYLES, space="w_plus")
    moved = []
    for locality in (0.0, 30.0):
        settings = tuning.Settings(steps=40, rate=3e-3, until=0.0, locality=locality)
        changes = fit.changes_of(foreign, last(run(foreign, 10, solver, tune=settings)))
        tuned = apply_edit(foreign.params, Edit(changes), 1.0)
        images = [images_of_z(each, w_plus, generator=STYLES) for each in (foreign.params, tuned)]
        moved.append(likeness.mean_square(*images))
    assert moved[1] < 0.7 * moved[0]


def test_pictures_are_no_codes():
    with pytest.raises(InputError, match="pictures"):
        codes.require_space(testing.tiny_generators()["pix2pixhd"], "z")
    with pytest.raises(InputError, match=r"config\.space.*allowed: z"):
        codes.require_space(testing.tiny_generators()["dcgan"], "w")


def test_whitened_samples_have_unit_variance():
    params = params_lib.to_device(LINEAR.init(jax.random.key(1)))
    spread = codes.measure_spread(LINEAR, params, "w", jax.random.key(0))
    z = LINEAR.sample_latents(jax.random.key(0), 10_000)
    w = np.asarray(codes.code_of(params, z, generator=LINEAR, space="w"))
    u = np.asarray(spread.whiten(w))
    values = np.linalg.eigvalsh(np.cov(u.T))
    assert values.max() < 1.01  # less than 1 along an axis at the floor
    np.testing.assert_allclose(spread.colour(u), w, atol=1e-4)
    expected = np.sqrt(((w - w.mean(0)) ** 2).sum(1).mean())
    np.testing.assert_allclose(spread.deviation, expected, rtol=1e-4)


def test_linear_least_squares_take_one_step():
    random = np.random.RandomState(0)
    matrix, target = random.standard_normal((12, 5)), random.standard_normal(12)
    made = trust_region.make_solver(lambda problem, x: (problem[0] @ x - problem[1],))
    problem = (jnp.asarray(matrix, jnp.float32), jnp.asarray(target, jnp.float32))
    state = made.begin(problem, jnp.zeros(5), 100.0)
    (after,) = made.run(problem, state, steps=1, iterations=20, accuracy=1e-6)
    expected = np.linalg.lstsq(matrix, target, rcond=None)[0]
    np.testing.assert_allclose(after.point, expected, atol=1e-4)


def test_step_ends_at_the_border_of_the_region():
    made = trust_region.make_solver(lambda problem, x: (problem * x - 1,))
    problem = jnp.asarray([1.0, 2.0, 3.0])
    state = made.begin(problem, jnp.zeros(3), 0.1)
    (after,) = made.run(problem, state, steps=1, iterations=20)
    np.testing.assert_allclose(np.linalg.norm(after.point), 0.1, rtol=1e-5)
    assert after.radius > 0.1


def test_curved_valley_is_followed_to_its_end():
    made = trust_region.make_solver(lambda _, x: (10 * (x[1:] - x[:1] ** 2), 1 - x[:1]))
    state = made.begin(None, jnp.asarray([-1.2, 1.0]), 1.0)
    values = [state.value]
    for after in made.run(None, state, steps=60, iterations=5, accuracy=1e-3):
        values.append(after.value)
        state = after
    assert max(np.diff(values)) <= 0
    np.testing.assert_allclose(state.point, [1, 1], atol=1e-3)


def test_similarity_is_its_definition():
    random = np.random.RandomState(0)
    a, b = random.uniform(-1, 1, (2, 1, 13, 14, 2)).astype(np.float32)
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    found = []
    for channel in range(2):
        for y in range(3):
            for x in range(4):
                p, q = (each[0, y : y + 11, x : x + 11, channel].astype(float) for each in (a, b))
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                both = (window * (p - mp) * (q - mq)).sum()
                c1, c2 = 0.02**2, 0.06**2
                top = (2 * mp * mq + c1) * (2 * both + c2)
                found.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    np.testing.assert_allclose(likeness.ssim(a, b), np.mean(found), atol=1e-4)
    np.testing.assert_allclose(likeness.ssim(a, a), 1, atol=1e-5)
    assert likeness.psnr(a, a) == np.inf
    np.testing.assert_allclose(likeness.psnr(a, a + 0.2), 20, atol=1e-4)
