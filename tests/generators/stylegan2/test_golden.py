"""StyleGAN2 against numbers of the original programs; the index names sizes and tolerances.

Batches are padded to one size, so that each generator is compiled once.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import make_generator
from tests.generators.stylegan2.definition import upsampled
from tests.tools.converting import read_nvidia, read_stylegan2
from tools.convert_weights.networks.stylegan2.reading import from_content

PROGRAMS = (
    "rosinality/stylegan2-pytorch",
    "NVlabs/stylegan2-ada-pytorch",
    "layout of NVlabs/stylegan2 ",
)
ROSINALITY, ADA, TENSORFLOW = map(testing.golden_names, PROGRAMS)

pytestmark = pytest.mark.golden(*PROGRAMS)

BATCH = 4


@functools.partial(jax.jit, static_argnums=0)
def map_latent(generator, params, z):
    return generator.map_latent(params, z)


@functools.partial(jax.jit, static_argnums=0)
def stages(generator, params, w_plus):
    """Returns the outputs of all stages of the synthesis; the last is the images."""
    carries = [w_plus]
    for stage in range(generator.mapping_stages, generator.stages):
        variables = {"params": params}
        run = generator.network.apply(variables, carries[-1], stage, stage + 1, method="run")
        carries.append(run)
    return carries[1:]


def in_batches(function, inputs):
    """Returns function(batch) of all rows, in batches of one size; the last batch is padded."""
    rows = -(-len(inputs) // BATCH) * BATCH
    filled = np.resize(inputs, (rows, *inputs.shape[1:]))
    parts = [function(filled[start : start + BATCH]) for start in range(0, rows, BATCH)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(inputs)], *parts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients(generator, layers, params, latent, cotangent):
    """Returns the gradients of <cotangent, images> by the latent and by the layers' weights."""

    def product(latent, weights):
        changed = params
        for layer, weight in zip(layers, weights, strict=True):
            changed = params_lib.replace(changed, layer.path, weight)
        carry = generator.prefix(changed, latent, layers)
        return jnp.vdot(generator.suffix(changed, carry, layers), cotangent)

    weights = [params_lib.get(params, layer.path) for layer in layers]
    return jax.grad(product, argnums=(0, 1))(latent, weights)


class Golden:
    """A case, its arrays and the generator from its checkpoint."""

    def __init__(self, name):
        self.case = testing.golden_case(name)
        self.data = self.case.arrays("data")
        self.config, self.params, _ = read_stylegan2(self.case.path("checkpoint"))
        # No file of this kind says it.
        rate = self.case.info["architecture"].get("lr_mlp", self.config["mapping_rate"])
        self.config["mapping_rate"] = rate
        self.generator = self.make()

    def make(self, **changes):
        return make_generator("stylegan2", self.config | changes)

    def latent(self):
        """Returns z, followed by the label if there is one."""
        parts = [self.data[key] for key in ("in/z", "in/c") if key in self.data]
        return np.concatenate(parts, axis=1)

    def w_plus(self, latent, **changes):
        return in_batches(lambda z: map_latent(self.make(**changes), self.params, z), latent)

    def stages(self, w_plus, params=None):
        params = self.params if params is None else params
        return in_batches(lambda w: stages(self.generator, params, w), w_plus)

    def images(self, w_plus, params=None):
        return self.stages(w_plus, params)[-1]

    def silent(self):
        """Returns the parameters with noise of strength 0."""
        flat = params_lib.flatten(self.params)
        return params_lib.unflatten(
            {k: 0 * v if k.endswith("noise_strength") else v for k, v in flat.items()}
        )

    def close(self, actual, key, quantity):
        """Compares with the stored rows; stored images and features are NCHW."""
        desired = self.data[key]
        actual = np.asarray(actual)
        actual = np.moveaxis(actual, -1, 1) if actual.ndim == 4 else actual
        testing.assert_close(actual[: len(desired)], desired, self.case.tolerance[quantity], key)

    def gradients_close(self, latent, keys, latent_key):
        """Compares the stored gradients; `keys` maps the layers' paths to names of arrays."""
        layers = tuple(layer for layer in self.generator.layers if layer.path in keys)
        assert len(layers) == len(keys)
        cotangent = np.moveaxis(self.data["in/cotangent"], 1, -1)
        by_latent, by_weight = gradients(self.generator, layers, self.params, latent, cotangent)
        self.close(by_latent[:, : self.generator.space.movable], latent_key, "grad")
        for layer, gradient in zip(layers, by_weight, strict=True):
            key = keys[layer.path]
            oihw = np.asarray(gradient).transpose(3, 2, 0, 1).reshape(self.data[key].shape)
            testing.assert_close(oihw, self.data[key], self.case.tolerance["grad"], key)


# The program of rosinality.


@pytest.fixture(scope="module", params=ROSINALITY)
def rosinality(request):
    return Golden(request.param)


def test_rosinality_latents_equal_the_original(rosinality):
    """The mapping, the average, truncation, and style mixing."""
    data, z = rosinality.data, rosinality.data["in/z"]
    w_plus = rosinality.w_plus(z)
    rosinality.close(w_plus, "out/latent_noisebuf", "w")
    for row in range(w_plus.shape[1]):
        rosinality.close(w_plus[:, row], "out/w", "w")
    rosinality.close(rosinality.w_plus(data["in/z2"])[:, 0], "out/w2", "w")
    rosinality.close(rosinality.params["mapping"]["w_avg"][None], "out/latent_avg", "w")


def test_rosinality_images_equal_the_original(rosinality):
    """With stored noise or none; truncated, mixed, from a single w and from w_plus."""
    data, z = rosinality.data, rosinality.data["in/z"]
    w_plus = rosinality.w_plus(z)
    rosinality.close(rosinality.images(w_plus), "out/image_noisebuf", "forward")
    rosinality.close(
        rosinality.images(w_plus, rosinality.silent()), "out/image_zeronoise", "forward"
    )
    repeated = np.repeat(data["out/w"][:, None], w_plus.shape[1], axis=1)
    rosinality.close(rosinality.images(repeated), "out/image_w", "forward")
    rosinality.close(rosinality.images(data["in/wplus"]), "out/image_wplus", "forward")
    for key, how in rosinality.case.info["mix_keys"].items():
        truncation, first = how["truncation"], how.get("inject_index", w_plus.shape[1])
        mixed = rosinality.w_plus(z, truncation=truncation)
        mixed[:, first:] = rosinality.w_plus(data["in/z2"], truncation=truncation)[:, first:]
        latent_key = key.replace("image", "latent")
        if latent_key in data:
            rosinality.close(mixed, latent_key, "w")
        rosinality.close(rosinality.images(mixed), key, "forward")


def test_rosinality_images_of_given_noise_equal_the_original(rosinality):
    """Each sample has its own noise, which replaces the constant noise."""
    paths = [path for path in params_lib.flatten(rosinality.params) if path.endswith("/noise")]
    paths.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path)])
    w_plus = rosinality.w_plus(rosinality.data["in/z"])
    images = []
    for sample in range(len(w_plus)):
        params = rosinality.params
        for index, path in enumerate(paths):
            noise = rosinality.data[f"in/noise_{index}"][sample, 0]
            params = params_lib.replace(params, path, noise)
        images.append(rosinality.images(w_plus[sample : sample + 1], params)[0])
    rosinality.close(np.stack(images), "out/image_noiselist", "forward")


def before_activation(x, weights):
    """Returns the convolution's output, from the result of noise, bias and leaky ReLU."""
    x = np.asarray(x) / np.sqrt(np.float32(2))
    x = np.where(x < 0, x / np.float32(0.2), x) - weights["bias"]
    return x - weights["noise_strength"] * weights["noise"][..., None]


def test_rosinality_layers_equal_the_original(rosinality):
    """Features before and after noise, bias and activation, and the image after each ToRGB."""
    generator, data = rosinality.generator, rosinality.data
    states = rosinality.stages(rosinality.w_plus(data["in/z"]))
    compared = 0
    for layer in generator.layers:
        key = f"act/{layer.original_name}"
        if key in data:
            state = states[layer.stage - generator.mapping_stages]
            if "torgb" not in layer.path:
                rosinality.close(state.x, key, "intermediate")
                block, part = layer.path.split("/")[1:3]
                weights = rosinality.params["synthesis"][block][part]
                rosinality.close(before_activation(state.x, weights), f"{key}.conv", "intermediate")
            else:
                is_last = layer.stage == generator.stages - 1
                rosinality.close(state if is_last else state.image, key, "intermediate")
            compared += 1
    assert compared == generator.stages - generator.mapping_stages


def test_rosinality_gradients_equal_the_original(rosinality):
    """By z, and by weights through matrix products and demodulation."""
    keys = {}
    for name in rosinality.case.info["grad_weight_keys"]:
        (layer,) = rosinality.generator.find_layers([name.removesuffix(".conv.weight")])
        keys[layer.path] = f"grad/{name}"
    rosinality.gradients_close(rosinality.data["in/z"], keys, "grad/z")


# NVIDIA's programs.


@pytest.fixture(scope="module", params=ADA)
def ada(request):
    return Golden(request.param)


def variants(golden):
    """Labels of the stored latents with their truncation: psi05_cut3 is 0.5 in 3 rows."""
    for key in golden.data:
        if match := re.fullmatch(r"out/ws_(psi(\d)(\d*)(?:_cut(\d+))?)", key):
            label, whole, decimals, rows = match.groups()
            assert rows is None or int(rows) == golden.case.info["cutoff"]
            factor = float(f"{whole}.{decimals}")
            yield label, {"truncation": factor, "truncation_cutoff": rows and int(rows)}


def assert_latents_and_images(golden):
    latents = {}
    for label, changes in variants(golden):
        latents[label] = golden.w_plus(golden.latent(), **changes)
        golden.close(latents[label], f"out/ws_{label}", "w")
    assert latents
    if "in/ws" in golden.data:
        latents["wplus"] = golden.data["in/ws"]
    joined = np.concatenate(list(latents.values()))
    for noise, params in (("const", golden.params), ("none", golden.silent())):
        images = np.split(golden.images(joined, params), len(latents))
        for label, batch in zip(latents, images, strict=True):
            key = f"out/image_{noise}_{label}"
            if key in golden.data:
                golden.close(batch, key, "forward")


def test_ada_latents_and_images_equal_the_original(ada):
    """For all truncations, for given w_plus, with constant noise and with noise strength 0."""
    assert_latents_and_images(ada)
    images = ada.images(ada.w_plus(ada.latent()))
    ada.close(images, "out/image_const_unfused", "forward")


def test_ada_layers_equal_the_original(ada):
    """Features, images and residuals after each stage that passes them on, and what ToRGB and the
    last convolution of a residual block add to them.
    """
    generator = ada.generator
    *states, last = ada.stages(ada.w_plus(ada.latent()))
    stages_of = {
        layer.path.removeprefix("synthesis/").removesuffix("/kernel"): layer.stage
        for layer in generator.layers
        if layer.path.startswith("synthesis") and "affine" not in layer.path
    }
    compared = 0
    for place, stage in stages_of.items():
        block, part = place.split("/")
        number = stage - generator.mapping_stages
        is_last = stage == generator.stages - 1
        before = states[number - 1] if number else None
        image = last if is_last else states[number].image
        if part == "torgb":
            own = image
            if before.image is not None:
                taps = ada.config["resample_taps"]
                own = image - np.stack([upsampled(sample, taps) for sample in before.image])
            ada.close(own, f"act/{block}.torgb", "intermediate")
        if is_last:
            ada.close(last, f"act/{block}.img", "intermediate")
            continue
        state = states[number]
        if part == "conv1" and before is not None and before.residual is not None:
            ada.close(state.x - before.residual, f"act/{block}.conv1", "intermediate")
        # conv1 of a residual block hands on its sum with the other summand.
        attribute, name = {
            "conv0": ("x", "conv0"),
            "conv1": ("x", "x" if f"act/{block}.x" in ada.data else "conv1"),
            "torgb": ("image", "img"),
            "skip": ("residual", "skip"),
        }[part]
        ada.close(getattr(state, attribute), f"act/{block}.{name}", "intermediate")
        compared += 1
    assert compared == len(states)


def test_ada_network_that_is_no_average_equals_the_original(ada):
    """G, whose weights differ from those of G_ema, converts too."""
    network = read_nvidia(ada.case.path("checkpoint"))["G"]
    config, params = from_content(network, "file")
    assert config == ada.config
    w_plus = in_batches(lambda z: map_latent(ada.generator, params, z), ada.latent())
    ada.close(ada.images(w_plus, params), "out/image_const_psi1_of_G_not_ema", "forward")


@pytest.fixture(scope="module", params=TENSORFLOW)
def tensorflow(request):
    return Golden(request.param)


def test_tensorflow_file_converts_to_the_same_weights(tensorflow):
    """Bit for bit those of the PyTorch file that the official converter makes from it."""
    twin = testing.golden_case(tensorflow.case.info["same_weights_as"])
    config, params, _ = read_stylegan2(twin.path("checkpoint"))
    assert tensorflow.config == config
    assert params_lib.digest(tensorflow.params) == params_lib.digest(params)


def test_tensorflow_images_and_gradients_equal_the_original(tensorflow):
    """Latents, images, and gradients by z and by the weight that the two formats store reversed."""
    assert_latents_and_images(tensorflow)
    keys = {
        name.removesuffix("weight").replace(".", "/") + "kernel": f"grad/{name}_psi1_const"
        for name in tensorflow.case.info["grad_weight_keys"]
    }
    tensorflow.gradients_close(tensorflow.latent(), keys, "grad/z_psi1_const")
