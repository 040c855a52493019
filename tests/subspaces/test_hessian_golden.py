"""Power iteration for the LPIPS Hessian against the iterates of the original program."""

import ast
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import linalg, testing
from navigan_jax import params as params_lib
from navigan_jax.generators.files import make_generator
from navigan_jax.perceptual import lpips
from navigan_jax.perceptual.base import AtSize, distance, resize
from navigan_jax.subspaces import products
from tests.tools.converting import from_rosinality
from tools.convert_weights.networks.lpips.weights import from_state_dicts
from tools.convert_weights.readers.torch_file import read_torch

PROGRAM = "yandex-research/navigan: hessian_power_iteration.HVP_forward"
CASES = testing.golden_names(PROGRAM)

pytestmark = pytest.mark.golden(PROGRAM)


@dataclasses.dataclass(frozen=True)
class Golden:
    """The case, the objective of its program in one precision, and the compiled gradient."""

    case: testing.GoldenCase
    data: dict[str, np.ndarray]
    objective: products.Objective
    gradient: Callable[[Any], Any]
    params: dict[str, Any]
    metric: AtSize
    dtype: type

    @property
    def info(self):
        return self.case.info["architecture"]

    @property
    def layer(self):
        return self.objective.layers[0]

    def vector(self, key, *index):
        """A stored change of the weight (OIHW after any axes of length 1) as our flat HWIO."""
        array = self.data[key][index]
        return jnp.asarray(weight_hwio(array).ravel(), self.dtype)


def weight_hwio(array):
    return array.reshape(array.shape[-4:]).transpose(2, 3, 1, 0)


def nhwc(images):
    return np.moveaxis(images, 1, -1)


def make_golden(name, dtype):
    case = testing.golden_case(name)
    data, digest, info = case.arrays("data"), case.arrays("digest"), case.info["architecture"]

    def cast(tree):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)

    content = read_torch(case.path("generator"))
    config, params = from_rosinality(content["g_ema"], content["latent_avg"])
    generator = make_generator("stylegan2", config)
    shapes = [ast.literal_eval(shape) for shape in digest["digest/shapes"].tolist()]
    backbone = testing.fill_state_dict(
        dict(zip(digest["digest/names"].tolist(), shapes, strict=True)),
        testing.golden_fill_start(info["fill"]),
    )
    prefix = "lpips_lin/"
    linear = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    config, weights = from_state_dicts(info["lpips_net"], backbone, linear, "0.1")
    metric = AtSize(
        lpips.create(cast(weights), **config),
        info["lpips_interpolation_size"],
        info["interpolation"],
    )
    objective = products.make_objective(
        generator,
        cast(params),
        metric,
        data["in/zs"].astype(dtype),
        generator.find_layers([f"convs.{info['layer_ix']}"]),
        microbatch=info["batch_size"],
        cache_bytes=1 << 30,
    )
    gradient = products.gradient(objective)
    return Golden(case, data, objective, gradient, cast(params), metric, dtype)


@pytest.fixture(scope="module", params=CASES)
def single(request):
    return make_golden(request.param, np.float32)


@pytest.fixture(scope="module", params=CASES)
def double(request):
    with testing.x64(optimised=True):
        return make_golden(request.param, np.float64)


@pytest.fixture
def step(monkeypatch):
    """One step of the power iteration, by the compiled gradient."""

    def make_step(golden, found, vector):
        monkeypatch.setattr(products, "gradient", lambda _: golden.gradient)
        product = products.central_difference(golden.objective, epsilon=golden.info["epsilon"])
        return linalg.power_step(lambda v: product(v[None])[0], found, vector)

    return make_step


def relative(actual, desired):
    return float(jnp.linalg.norm(actual - desired) / jnp.linalg.norm(desired))


def cosine(a, b):
    return float(jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b)))


def test_images_and_gradient_at_a_change_equal_the_original(single):
    """Images as LPIPS sees them, and the gradient of the mean distance, with the weight changed."""
    params, tolerance = single.params, single.case.tolerance
    generator, metric = single.objective.generator, single.metric
    images_of = jax.jit(lambda p, z: generator.synthesize(p, generator.map_latent(p, z)))
    changed = params_lib.add(params, single.layer.path, weight_hwio(single.data["in/delta"]))
    images = [images_of(weights, single.data["in/zs"]) for weights in (params, changed)]
    for index, batch in enumerate(images):
        key = f"at_delta/img{index}_interp"
        shrunk = resize(batch, metric.size, metric.method)
        testing.assert_close(shrunk, nhwc(single.data[key]), tolerance["images"], key)
    full = nhwc(single.data["at_delta/img0_full_first2"])
    testing.assert_close(images[0][: len(full)], full, tolerance["images"], "full")
    gradient = single.gradient(single.vector("in/delta"))
    expected = single.vector("at_delta/g_all")
    testing.assert_close(gradient, expected, tolerance["gradient"], "gradient")


def test_distances_and_gradient_in_64_bits_equal_the_original(double):
    """LPIPS of each pair agrees to nearly all digits, the gradient to those stored."""
    generator, metric = double.objective.generator, double.metric

    @jax.jit
    def distances(params, changed, z):
        w_plus = generator.map_latent(params, z)
        pair = [generator.synthesize(weights, w_plus) for weights in (params, changed)]
        return distance(metric, *pair)

    with testing.x64(optimised=True):
        delta = weight_hwio(double.data["in/delta"]).astype(np.float64)
        changed = params_lib.add(double.params, double.layer.path, delta)
        zs = double.data["in/zs"].astype(np.float64)
        actual = jax.device_get(distances(double.params, changed, zs))
        gradient = jax.device_get(double.gradient(double.vector("in/delta")))
        expected = jax.device_get(double.vector("at_delta/g_all_f64"))
    testing.assert_close(actual, double.data["at_delta/lpips_f64"].ravel(), 1e-6, "lpips")
    # Stored in 32 bits, so entries that are many times the root mean square are less exact.
    assert np.linalg.norm(gradient - expected) <= 1e-6 * np.linalg.norm(expected)


def test_gradient_is_orthogonal_to_every_output_filter(double):
    """A demodulated filter may be scaled without effect, so at δ the gradient ⟂ (θ + δ)_o.

    δ is the stored change, or a product with the Hessian scaled to the same size. The 1e-8 in the
    demodulation breaks the symmetry by that much. Control: θ itself is not orthogonal.
    """
    original = np.asarray(params_lib.get(double.params, double.layer.path))
    outputs = original.shape[-1]
    with testing.x64(optimised=True):
        change = double.vector("in/delta")
        product = double.vector("f64/iterates_rounded_to_f32", 0, 1)
        for delta in (change, product * (jnp.linalg.norm(change) / jnp.linalg.norm(product))):
            gradient = np.asarray(double.gradient(delta)).reshape(-1, outputs)
            weight = original.reshape(-1, outputs) + np.asarray(delta).reshape(-1, outputs)
            scale = np.linalg.norm(gradient, axis=0) * np.linalg.norm(weight, axis=0)
            assert np.all(np.abs(np.sum(gradient * weight, axis=0)) <= 1e-7 * scale)
            meets = np.sum(gradient * original.reshape(-1, outputs), axis=0)
            assert np.any(np.abs(meets) > 1e-3 * scale)


def test_iterates_in_64_bits_equal_the_original(double, step):
    """Each vector's first iterate from its deflated draw, and its last iterate.

    All steps are the same map, so the stored iterates also stand for those between them.
    """
    stored, last = "f64/iterates_rounded_to_f32", double.info["max_iter"]
    with testing.x64(optimised=True):
        for vector in range(double.info["num_eigenvectors"]):
            found = [double.vector(stored, i, last) for i in range(vector)]
            start = linalg.deflate(found, double.vector("in/v_init_draws", vector))
            assert relative(start, double.vector(stored, vector, 0)) <= 1e-6
            numbers = {1: start}
            if vector == double.info["num_eigenvectors"] - 1:
                numbers[last] = double.vector(stored, vector, last - 1)
            for number, before in numbers.items():
                after = step(double, found, before)
                assert relative(after, double.vector(stored, vector, number)) <= 1e-6
                norm = double.data["f64/iterate_norms"][vector, number]
                assert abs(float(jnp.linalg.norm(after)) / norm - 1) <= 1e-6


def test_iterates_in_32_bits_follow_the_original(single, step):
    """The whole run in float32, each step from our previous iterate: rounding keeps the direction.

    The second step of every vector is tiny, so its length and those after it are less exact.
    """
    tolerance, stored = single.case.tolerance, "f64/iterates_rounded_to_f32"
    smallest, last = tolerance["later_iterates_cosine_vs_f64"], single.info["max_iter"]
    exact, found, others = [], [], []
    for vector in range(single.info["num_eigenvectors"]):
        start, desired = (single.vector(stored, vector, number) for number in (0, 1))
        first = step(single, exact, start)
        assert relative(first, desired) <= tolerance["first_iterate_vs_f64"]
        iterate = linalg.deflate(found, single.vector("in/v_init_draws", vector))
        for number in range(1, last + 1):
            before, iterate = iterate, step(single, found, iterate)
            desired = single.vector(stored, vector, number)
            assert cosine(iterate, desired) >= smallest
            others.append(cosine(before, desired))
        exact.append(desired)
        found.append(iterate)
    assert min(others) < smallest
