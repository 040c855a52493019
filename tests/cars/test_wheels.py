"""The nearest scene is found; combinations solve for the radius; paths tell what is reached."""

import jax
import numpy as np
import pytest

from benchmarks.cars import fitting, reading, scene, wheels
from benchmarks.cars import moves as moves_lib
from benchmarks.cars.train import SIZES
from navigan_jax import testing
from navigan_jax.evaluation.factors import Responses
from navigan_jax.evaluation.gauges import Factor, Gauges
from navigan_jax.generators.files import make_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import distance

SPANS = np.array([factor.high - factor.low for factor in scene.FACTORS])


def test_the_nearest_scene_of_a_render_is_its_own():
    """From a start that is wrong by 4 % of each range, to a tenth of that; the error falls too."""
    factors = np.asarray(scene.draw(jax.random.key(3), 4, all_vary=True))
    images = scene.render(factors, 32)
    start = factors + np.random.RandomState(0).normal(0, 0.04, factors.shape) * SPANS
    found, errors = fitting.nearest_scenes(images, start)
    before = np.sqrt(((np.asarray(scene.render(start, 32) - images)) ** 2).mean(axis=(1, 2, 3)))
    assert (errors < 0.3 * before).all()
    away = np.abs(found - factors)[:, wheels.RADIUS] / SPANS[wheels.RADIUS]
    assert away.max() < 0.02


def test_an_image_that_is_no_scene_keeps_its_distance():
    images = np.random.RandomState(1).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    start = np.asarray(scene.draw(jax.random.key(0), 2, all_vary=True))
    _, errors = fitting.nearest_scenes(images, start)
    assert (errors > 0.4).all()


def _responses(mean):
    """Responses of these slopes, whatever the shifts are."""
    count = len(mean)
    none = np.zeros((count, 4, mean.shape[1]))
    return Responses(mean, np.abs(mean), none, np.ones((count, 4)), np.ones((count, 4)))


def test_a_combination_moves_the_radius_and_cancels_the_rest():
    """Two moves that share an unwanted factor: their difference is free of it."""
    mean = np.zeros((2, len(scene.FACTORS)))
    mean[:, wheels.RADIUS] = 0.5, -0.5
    mean[:, 0] = 1.0, 1.0
    amounts = wheels.combine(_responses(mean), np.full((2, 2), 3.0))
    effect = amounts / 3 @ mean
    assert effect[wheels.RADIUS] > 0
    assert abs(effect[0]) < 1e-6 * effect[wheels.RADIUS]


def test_score_wants_strength_and_purity():
    mean = np.zeros((3, len(scene.FACTORS)))
    mean[:, wheels.RADIUS] = 0.5, 0.5, 0.1
    mean[1, 0] = 2.0
    first, mixed, weak = wheels.score(_responses(mean))
    assert first == pytest.approx(0.5) and first > weak > 0 and first > 5 * mixed


def test_reach_counts_only_images_of_equal_quality():
    """The widest changes here are of images that are too far from any scene."""
    path = wheels.Path("a", (0.0, -1, -0.5, 0.5, 1), (6, 3, 5, 7, 12), (0.1, 0.2, 0.12, 0.11, 0.13))
    low, high = path.reach()
    assert low == pytest.approx(5 / 6 - 1) and high == pytest.approx(7 / 6 - 1)


@pytest.fixture(scope="module")
def problem():
    """A small network of cars that was not trained, and a gauge of brightness."""
    sizes = {**SIZES, "channels": (8, 8), "mapping_widths": (8,)}
    generator = make_generator("stylegan2", sizes)
    params = testing.draw_params(generator, 0)
    gauges = Gauges(
        (Factor("brightness", -1, 1),),
        lambda images: np.asarray(images).mean((1, 2, 3), keepdims=True)[:, :, 0, 0],
    )
    return reading.Problem("none", generator, params, METRICS["l2"](), METRICS["l2"](), gauges)


@pytest.mark.parametrize("space", ["z", "w", "w_plus"])
def test_latent_moves_reach_the_same_change(problem, space):
    """At both ends, |p| is the rule's value within the search's precision of 10 %."""
    basis = moves_lib.find_latent_basis(problem, space, "components", 0)[:2]
    np.testing.assert_allclose((basis**2).reshape(len(basis), -1).sum(axis=1), 1, rtol=1e-5)
    moves = moves_lib.latent_moves(problem, space, basis)
    ends = reading.find_reach(problem, moves, np.eye(2), 0)
    start = moves.begin(problem.latents(0, reading.SCALE_LATENTS, 10))
    for number, row in enumerate(ends):
        for shift in (-row[0], row[1]):
            images = moves.images(start, moves.single(number, shift))
            far = distance(problem.metric, images, start.images).mean()
            assert np.sqrt(far / start.steps.mean()) == pytest.approx(reading.REACH, rel=0.1)
    found = reading.read_responses(problem, moves, np.eye(2), ends, 0)
    assert (np.diff(found.perceptual, axis=1) > 0).all()
