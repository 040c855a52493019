"""pix2pixHD, global and with an enhancer, against numbers of the original program."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.generators.pix2pixhd.network import find_edges
from tests.generators.golden_networks import GoldenNetwork, as_original, nhwc

PROGRAM = "NVIDIA/pix2pixHD"

pytestmark = pytest.mark.golden(PROGRAM)


@pytest.fixture(scope="module", params=testing.golden_names(PROGRAM))
def golden(request: pytest.FixtureRequest) -> GoldenNetwork:
    case = testing.golden_case(request.param)
    height, width = case.arrays("data")["in/label_ids"].shape[2:]
    arguments = ["--config", str(case.path("config")), "--size", f"{height}x{width}"]
    return GoldenNetwork(request.param, "pix2pixhd", arguments=arguments)


def _latent(golden: GoldenNetwork) -> np.ndarray:
    parts = (golden.data[f"in/{name}_ids"][:, 0] for name in ("label", "instance"))
    latent = np.stack([np.float32(part) for part in parts], axis=-1)
    return latent[..., : golden.generator.space.shape[-1]]


def _planes(golden: GoldenNetwork) -> np.ndarray:
    labels = np.eye(golden.generator.space.labels)[golden.data["in/label_ids"][:, 0]]
    edges = golden.data["out/edge_map"][:, 0, :, :, None]
    parts = [labels, edges][: 1 + golden.generator.space.has_instances]
    return np.concatenate(parts, axis=-1)


def _module(name: str, golden: GoldenNetwork) -> str | None:
    """Returns our name of an activation; None for sums and normalised features inside stages."""
    names = {
        layer.original_name.removesuffix(".weight"): layer.path for layer in golden.generator.layers
    }
    if name in names:
        return names[name].removesuffix("/kernel")
    block = names.get(f"{name}.conv_block.1")
    return None if block is None else block.removesuffix("/conv0/kernel")


def test_edges_are_those_of_the_original(golden: GoldenNetwork) -> None:
    edges = find_edges(jnp.asarray(golden.data["in/instance_ids"][:, 0]))
    np.testing.assert_array_equal(edges, golden.data["out/edge_map"][:, 0])


def test_images_and_activations(golden: GoldenNetwork) -> None:
    """The image also as the test program writes it, in whole grey levels."""
    found = golden.activations(_latent(golden))
    images = found[f"stage{golden.generator.stages - 1}"]
    golden.close(images, "out/image", "forward")
    written = np.clip((np.asarray(images[0]) + 1) / 2 * 255, 0, 255).astype(np.uint8)
    levels = np.abs(written.astype(int) - golden.data["out/image_uint8_hwc"])
    assert levels.max() <= golden.case.tolerance["image_uint8_levels"]
    compared = 0
    for key, match in golden.keys(r"act/(.+)"):
        module = _module(match[1], golden)
        if module is not None:
            golden.close(found[module], key, "intermediate")
            compared += 1
    assert compared > 6
    ends = [key for key in golden.data if re.fullmatch(r"act/model(?:\d+_2)?", key)]
    for key in ends:
        stage = golden.generator.stages - 1
        if key == "act/model":
            stage = max(
                layer.stage for layer in golden.generator.layers if layer.path.startswith("global")
            )
        golden.close(found[f"stage{stage}"], key, "intermediate")


def test_gradients(golden: GoldenNetwork) -> None:
    """By weights and by the encoded input; then in float64."""
    layers = golden.generator.find_layers(golden.case.info["grad_weight_keys"])
    paths, cotangent = [layer.path for layer in layers], nhwc(golden.data["in/cotangent"])
    _, by_weights, by_planes = golden.gradients(_planes(golden), cotangent, paths)

    def compare(weights: Any, prefix: str, tolerance: float) -> None:
        for layer in layers:
            ours = as_original(weights[layer.path])
            if "up" in layer.path:
                ours = ours.swapaxes(0, 1)
            key = f"{prefix}{layer.original_name}"
            testing.assert_close(ours, golden.data[key], tolerance, key)

    compare(by_weights, "grad/", golden.case.tolerance["grad"])
    for key, match in golden.keys(r"grad/encoded_input_ch(\d+(?:_\d+)*)"):
        places = [int(place) for place in match[1].split("_")]
        golden.close(np.asarray(by_planes)[..., places], key, "grad")
    # Normalisation removes a constant, so these sums are 0 but for rounding.
    key, total = "grad/encoded_input_sum_hw", np.asarray(by_planes, np.float64).sum(axis=(1, 2))
    scale = np.abs(by_planes).sum(axis=(1, 2)).max()
    tolerance = golden.case.tolerance["grad"]
    testing.assert_close(total, golden.data[key], tolerance, key, scale=scale)
    with jax.enable_x64(True):
        images, by_weights, _ = golden.gradients(_planes(golden), cotangent, paths, np.float64)
        golden.close(images, "f64/image", "forward")
        compare(by_weights, "f64/grad_", 1e-6)
