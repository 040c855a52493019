"""SNGAN and ProgGAN against numbers of NaviGAN's program."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.nn.resampling import double
from tests.generators.golden_networks import GoldenNetwork, as_original, nhwc

SNGAN = "yandex-research/navigan and anvoynov/GANLatentDiscovery (identical folders models/SNGAN)"
PROGGAN = "yandex-research/navigan: models.ProgGAN"
CASES = {
    **dict.fromkeys(testing.golden_names(SNGAN), "sngan"),
    **dict.fromkeys(testing.golden_names(PROGGAN), "proggan"),
}

pytestmark = pytest.mark.golden(SNGAN, PROGGAN)


@pytest.fixture(scope="module", params=CASES.items(), ids=CASES)
def golden(request: pytest.FixtureRequest) -> GoldenNetwork:
    return GoldenNetwork(*request.param)


def _latent(golden: GoldenNetwork) -> np.ndarray:
    z = golden.data["in/z"]
    return z.reshape(len(z), -1)


def _sngan_module(name: str, last: int) -> str:
    number, _, part = name.partition(".")
    if part:
        return f"block{int(number) - 2}/{part}"
    names = {0: "dense", 1: "stage0", last - 2: "norm", last: "image", last + 1: f"stage{last - 3}"}
    return names.get(int(number), f"block{int(number) - 2}")


def _proggan_module(name: str, last: int) -> str | None:
    *_, part = name.split(".")
    if part == "norm":
        return None  # our stages normalise within
    layer = "image" if name.startswith("output") else f"layer{name.split('.')[1]}"
    if part == "conv":
        return f"{layer}/conv"
    return f"stage{name.split('.')[1]}"


MODULES: dict[str, Callable[[str, int], str | None]] = {
    "sngan": _sngan_module,
    "proggan": _proggan_module,
}


def test_images_and_activations(golden: GoldenNetwork) -> None:
    latent = _latent(golden)
    found = golden.activations(latent)
    generator = golden.generator
    assert [generator.resolution, generator.image_channels] == [
        golden.data["out/image"].shape[axis] for axis in (2, 1)
    ]
    golden.close(found[f"stage{generator.stages - 1}"], "out/image", "forward")
    last = generator.stages + 2  # the number of the last convolution
    compared = 0
    for key, match in golden.keys(r"act/(.+)"):
        module = MODULES[generator.architecture](match[1], last)
        if module is not None:
            if module.endswith("bypass") and module not in found:  # upsampling without a kernel
                block = int(module.removeprefix("block").partition("/")[0])
                found[module] = double(found[f"stage{block}"])
            golden.close(found[module], key, "intermediate")
            compared += 1
    assert compared > 3


def test_gradients(golden: GoldenNetwork) -> None:
    """By the latent and by weights, named as in the file; then in float64."""
    names = [
        name for name in golden.case.info["grad_weight_keys"] if not name.endswith("wscale.scale")
    ]
    layers = golden.generator.find_layers(names)
    latent, cotangent = _latent(golden), nhwc(golden.data["in/cotangent"])
    scales = [
        f"layer{name.split('.')[1]}/scale"
        for name in golden.case.info["grad_weight_keys"]
        if name.endswith("wscale.scale")
    ]
    paths = [layer.path for layer in layers] + scales
    _, by_weights, by_latent = golden.gradients(latent, cotangent, paths)
    golden.close_latent(by_latent, "grad/z", "grad")
    for layer in layers:
        ours = as_original(by_weights[layer.path])
        testing.assert_close(
            ours, golden.data[f"grad/{layer.original_name}"], golden.case.tolerance["grad"]
        )
    for scale in scales:
        key = f"grad/features.{scale.removeprefix('layer').partition('/')[0]}.wscale.scale"
        golden.close(by_weights[scale], key, "grad")
    with jax.enable_x64(True):
        images, _, by_latent = golden.gradients(latent, cotangent, paths[:1], np.float64)
        golden.close(images, "f64/image", "forward")
        golden.close_latent(by_latent, "f64/grad_z", "grad")
