"""Products with the Hessian against the dense Hessian, which JAX derives from the definition."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import devices, testing
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Params
from navigan_jax.generators.base import Generator
from navigan_jax.generators.dcgan import dcgan
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import AtSize, Distance, Features, distance
from navigan_jax.subspaces import products

SAMPLES = 5
PLENTY = 2**26  # bytes that hold whatever is cached here


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Toy(Distance):
    """A small LPIPS: filters, a smooth nonlinearity, features normalised over channels."""

    kernel: Float[Array, "3 3 in out"]

    def features(self, images: Images) -> Features:
        Toy.traces += 1
        maps = jax.lax.conv_general_dilated(
            images, self.kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        maps = jnp.tanh(maps) + 1.5
        return (maps / jnp.sqrt(jnp.sum(maps**2, axis=-1, keepdims=True)), 0.3 * images)


Toy.traces = 0


def make_metric(name: str) -> Distance:
    if name == "toy":
        kernel = np.random.RandomState(0).standard_normal((3, 3, 3, 7))
        return Toy(jnp.asarray(kernel))
    return METRICS[name]()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A tiny generator with a distance, and the dense reference from the definition."""

    generator: Generator
    params: Params
    metric: Distance
    z: Array
    names: tuple[str, ...]

    def objective(self, *, microbatch: int = 2, cache_bytes: int = PLENTY) -> products.Objective:
        return products.make_objective(
            self.generator,
            self.params,
            self.metric,
            self.z,
            self.generator.find_layers(self.names),
            microbatch=microbatch,
            cache_bytes=cache_bytes,
        )

    def mean_distance(self, vector: Array) -> Array:
        """Returns E_z d(G_θ(z), G_{θ+δ}(z))."""
        moved = self.params
        deltas = products.split(self.generator.find_layers(self.names), vector)
        for path, delta in deltas.items():
            moved = params_lib.add(moved, path, delta)
        images = self.generator.synthesize(self.params, self.z)
        return jnp.mean(distance(self.metric, images, self.generator.synthesize(moved, self.z)))

    def draw(self, count: int, seed: int = 3) -> Array:
        layers = self.generator.find_layers(self.names)
        entries = sum(math.prod(layer.shape) for layer in layers)
        return jnp.asarray(np.random.RandomState(seed).standard_normal((count, entries)))


def make_problem(metric: str, names: Sequence[str]) -> Problem:
    generator = dcgan(z_dim=3, widths=(5, 2), image_channels=3)
    random = np.random.RandomState(1)

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        lowest = -0.6 if path[-1].key == "kernel" else 0.1
        return jnp.asarray(random.uniform(lowest, 0.8, leaf.shape))

    shapes = generator.weights
    params = jax.tree.map_with_path(draw, shapes)
    z = random.standard_normal((SAMPLES, 3))
    return Problem(generator, params, make_metric(metric), jnp.asarray(z), tuple(names))


@pytest.fixture
def _x64() -> Iterator[None]:
    with testing.x64():
        yield


in_x64 = pytest.mark.usefixtures("_x64")


def dense(problem: Problem, at: Array | None = None) -> np.ndarray:
    """Returns the whole Hessian."""
    point = 0 * problem.draw(1)[0] if at is None else at
    return np.asarray(jax.jit(jax.hessian(problem.mean_distance))(point))


@in_x64
@pytest.mark.parametrize("metric", ["nlpd", "toy"])
def test_products_at_zero_are_those_of_the_dense_hessian(metric: str) -> None:
    """Exact and Gauss-Newton products; their matrix is symmetric and positive semidefinite."""
    problem = make_problem(metric, ["conv2" if metric == "nlpd" else "conv1"])
    hessian = dense(problem)
    objective = problem.objective()
    scale = np.linalg.norm(hessian, 2)
    vectors = problem.draw(3)
    exact = products.exact(objective)(vectors)
    testing.assert_close(exact, vectors @ hessian, 1e-10, scale=scale)
    whole = np.asarray(products.gauss_newton(objective, cache_bytes=0)(jnp.eye(len(hessian))))
    testing.assert_close(whole, hessian, 1e-10, scale=scale)
    testing.assert_close(whole, whole.T, 1e-12, scale=scale)
    values = np.linalg.eigvalsh(whole)
    assert values[0] >= -1e-14 * values[-1] and values[-1] > 0


@in_x64
def test_products_off_zero_are_exact_and_not_gauss_newton() -> None:
    """At a distance above 0 the second derivatives matter, and the exact product has them."""
    problem = make_problem("toy", ["conv1"])
    point = 0.3 * problem.draw(1, seed=8)[0]
    vectors = problem.draw(2)
    there, at_zero = dense(problem, point), dense(problem)
    result = products.exact(problem.objective(), at=point)(vectors)
    testing.assert_close(result, vectors @ there, 1e-10)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(result, vectors @ at_zero, 1e-2)


@in_x64
def test_gradient_is_that_of_the_definition() -> None:
    problem = make_problem("toy", ["conv1"])
    point = 0.2 * problem.draw(1)[0]
    objective = problem.objective()
    slope = jax.jit(jax.grad(problem.mean_distance))(point)
    testing.assert_close(products.gradient(objective)(point), slope, 1e-10)


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (4, 4), (2, 8)])
def test_pixels_that_nothing_reads_are_left_out_where_it_pays(
    size: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For images of 16 pixels: at stride 4 or more, not at stride 2."""
    problem = dataclasses.replace(
        make_problem("l2", ["conv1"]), metric=AtSize(METRICS["l2"](), size, "nearest")
    )
    objective = problem.objective()
    asked = set()
    suffix = Generator.suffix

    def spy(*arguments: Any, stride: int = 1) -> Images:
        asked.add(stride)
        return suffix(*arguments, stride=stride)

    monkeypatch.setattr(Generator, "suffix", spy)
    jax.eval_shape(products.gradient(objective), jnp.zeros(objective.entries))
    assert asked >= {stride} and max(asked) == stride


@in_x64
def test_central_difference_is_of_second_order() -> None:
    """Half the step gives a quarter of the error. The step is ε‖v‖: v is not normalised."""
    problem = make_problem("toy", ["conv2"])
    objective = problem.objective()
    vectors = problem.draw(2)
    expected = np.asarray(products.exact(objective)(vectors))

    def error(result: Array) -> float:
        return np.linalg.norm(result - expected) / np.linalg.norm(expected)

    product = products.central_difference(objective, epsilon=1e-3)
    errors = [error(product(scale * vectors) / scale) for scale in (2.0, 1.0, 0.5)]
    assert 1e-7 < errors[1] < 1e-2  # neither rounding nor far away
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4, rtol=0.1)
    wider = error(products.central_difference(objective, epsilon=2e-3)(vectors))
    np.testing.assert_allclose(wider, errors[0], rtol=1e-4)


@in_x64
def test_several_layers_are_one_problem() -> None:
    """The off-diagonal blocks of the Hessian are present, in the network's order of layers."""
    problem = make_problem("toy", ["main.6", "conv0"])
    objective = problem.objective()
    assert [layer.path for layer in objective.layers] == ["conv0/kernel", "conv2/kernel"]
    assert objective.entries == 16 * (3 * 5 + 2 * 3)
    hessian = dense(problem)
    vectors = problem.draw(3)
    assert np.linalg.norm(hessian[:240, 240:]) > 1e-2 * np.linalg.norm(hessian)
    product = products.gauss_newton(objective, cache_bytes=PLENTY)
    testing.assert_close(product(vectors), vectors @ hessian, 1e-10)


def test_split_and_join_are_inverse() -> None:
    """Vectors to weights by path and back, with and without leading axes."""
    layers = make_problem("l2", []).generator.layers
    entries = sum(math.prod(layer.shape) for layer in layers)
    block = jnp.arange(2 * entries, dtype=jnp.float32).reshape(2, entries)
    deltas = products.split(layers, block)
    for layer in layers:
        assert deltas[layer.path].shape == (2, *layer.shape)
    np.testing.assert_array_equal(products.join(layers, deltas, axes=1), block)
    one = products.split(layers, block[1])
    np.testing.assert_array_equal(one[layers[1].path], deltas[layers[1].path][1])
    np.testing.assert_array_equal(products.join(layers, one), block[1])


KINDS: dict[str, Callable[[products.Objective, int], Callable[[Array], Array]]] = {
    "exact": lambda objective, cache: products.exact(objective),
    "gauss_newton": lambda objective, cache: products.gauss_newton(objective, cache_bytes=cache),
    "central_difference": lambda objective, cache: products.central_difference(
        objective, epsilon=0.1
    ),
}


@in_x64
@pytest.mark.parametrize("kind", KINDS)
def test_neither_microbatch_nor_cache_changes_a_product(kind: str) -> None:
    """For microbatches up to the number of latents and beyond; caches for all, some and nothing."""
    problem = make_problem("toy", ["conv2"])
    vectors = problem.draw(2)
    results = [
        KINDS[kind](problem.objective(microbatch=microbatch, cache_bytes=cache), cache)(vectors)
        for microbatch, cache in [(1, PLENTY), (2, 0), (3, 12_000), (9, 0)]
    ]
    kept = [problem.objective(cache_bytes=cache).starts_at_layers for cache in (0, 12_000, PLENTY)]
    assert kept == [False, True, True]
    for result in results[1:]:
        testing.assert_close(result, results[0], 1e-12)


def large_constants(program: str, largest: int) -> list[str]:
    """Returns the shapes of the constants of a compiled program that exceed `largest` entries."""
    shapes = re.findall(r"= (\w+\[[\d,]*\])[^=]* constant\(", program)
    sizes = {shape: re.findall(r"\d+", shape.partition("[")[2]) for shape in shapes}
    return [shape for shape, sides in sizes.items() if math.prod(map(int, sides)) > largest]


@pytest.mark.parametrize("cache", [0, PLENTY])
@pytest.mark.parametrize("kind", KINDS)
def test_programs_are_compiled_once_and_hold_no_weights(
    kind: str, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. More microbatches, more vectors and other values trace nothing again. 2. No program holds
    weights or latents as constants, which XLA would fold and copy at every compilation.
    """
    seen: list[str] = []
    monkeypatch.setattr(devices, "_require_memory", lambda program: seen.append(program.as_text()))
    problem = make_problem("toy", ["conv2"])
    product = KINDS[kind](problem.objective(cache_bytes=cache), cache)
    vectors = problem.draw(2)
    product(vectors)
    Toy.traces, compiled = 0, len(seen)
    product(2 * vectors)
    product(-vectors)
    assert Toy.traces == 0 and len(seen) == compiled
    assert len(seen) >= 1 and all("constant(" in program for program in seen)
    smallest = min(SAMPLES * 3, 3 * 3 * 3 * 7, 2 * 3 * 16)  # latents, distance, a layer's weight
    assert [large_constants(program, smallest - 1) for program in seen] == [[]] * len(seen)


def test_constants_are_found_where_there_are_some() -> None:
    """Control: the check above finds the constant of a program that has one."""
    weights = jnp.asarray(np.random.RandomState(0).standard_normal((6, 7)), jnp.float32)
    program = jax.jit(lambda x: x @ weights).lower(jnp.ones((3, 6))).compile().as_text()
    assert large_constants(program, 41) and not large_constants(program, 42)


@pytest.mark.parametrize("cache", [0, PLENTY])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_needed_is_told_before_it_is_there(
    kind: str, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`measure` equals the memory of the programs and of the arrays that a product then keeps."""
    problem = make_problem("toy", ["conv2"])
    layers = problem.generator.find_layers(problem.names)
    needs = products.measure(
        problem.generator,
        problem.params,
        problem.metric,
        problem.z,
        layers,
        microbatch=2,
        cache_bytes=cache,
        kinds=(kind,),
        block_size=2,
    )
    programs: list[int] = []
    monkeypatch.setattr(
        devices,
        "_require_memory",
        lambda program: programs.append(devices.bytes_of_program(program) or 0),
    )
    kept: list[int] = []
    keep = devices.map_microbatches

    def watched(*arguments: object) -> devices.Shards:
        shards = keep(*arguments)  # type: ignore[arg-type]
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(shards.batches)))
        return shards

    monkeypatch.setattr(devices, "map_microbatches", watched)
    objective = problem.objective(cache_bytes=cache)
    KINDS[kind](objective, cache)(problem.draw(2).astype(jnp.float32))
    assert needs.working == max(programs)
    assert [size for size in (needs.inputs, needs.jacobian) if size] == kept
    assert bool(kept) == bool(cache)
    leaves = jax.tree.leaves((problem.params, problem.metric))
    assert needs.shared == sum(leaf.nbytes for leaf in leaves)
