"""BigGAN and BigGAN-deep against numbers of the original programs.

The original gradients are by the stored weights; ours are by the weights in use, so the tests apply
the chain rule of the normalisation.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from tests.generators.golden_networks import GoldenNetwork, as_original, nhwc
from tools.convert_weights.foreign import read_foreign

ORIGINAL = "ajbrock/BigGAN-PyTorch"
DEEP = "huggingface/pytorch-pretrained-BigGAN"

pytestmark = pytest.mark.golden(ORIGINAL, DEEP)


@pytest.fixture(scope="module", params=testing.golden_names(ORIGINAL))
def original(request: pytest.FixtureRequest) -> GoldenNetwork:
    return GoldenNetwork(request.param, "biggan", arguments=_config(request.param))


@pytest.fixture(scope="module", params=testing.golden_names(DEEP))
def deep(request: pytest.FixtureRequest) -> dict[str, GoldenNetwork]:
    """The network at each truncation of the index."""
    truncations = testing.golden_case(request.param).info["truncations"]
    return {
        text: GoldenNetwork(
            request.param,
            "biggan-deep",
            {"truncation": float(text)},
            arguments=_config(request.param),
        )
        for text in truncations
    }


def _config(name: str) -> list[str]:
    return ["--config", str(testing.golden_case(name).path("config"))]


def _stored(golden: GoldenNetwork) -> dict[str, np.ndarray]:
    return dict(read_foreign(golden.case.path("checkpoint")).content)


def _latent(golden: GoldenNetwork, shift: int = 0) -> np.ndarray:
    z, classes = golden.data["in/z"], golden.generator.space.label_dim
    labels = np.eye(classes, dtype=np.float32)[(golden.data["in/class_ids"] + shift) % classes]
    return np.concatenate([z, labels], axis=1)


def _divided_by_step(stored: jax.Array, u: np.ndarray, epsilon: float) -> jax.Array:
    """The weight in use after one step of the power iteration; u and v count as constants."""
    matrix = stored.reshape(len(stored), -1)
    right = u @ matrix
    right = jax.lax.stop_gradient(right / jnp.maximum(jnp.linalg.norm(right), epsilon))
    left = right @ matrix.T
    left = jax.lax.stop_gradient(left / jnp.maximum(jnp.linalg.norm(left), epsilon))
    return stored / jnp.sum((right @ matrix.T) * left)


def _divided(stored: jax.Array, u: np.ndarray, v: np.ndarray) -> jax.Array:
    return stored / (u @ (stored.reshape(len(stored), -1) @ v))


def test_original_images_and_activations(original: GoldenNetwork) -> None:
    latent, stages = _latent(original), original.generator.stages
    found = original.activations(latent)
    original.close(found[f"stage{stages - 1}"], "out/image", "forward")
    original.close(found["shared"], "out/class_embedding", "intermediate")
    original.close(
        np.arctanh(np.asarray(found[f"stage{stages - 1}"])), "act/output_layer", "forward"
    )
    for key, match in original.keys(r"act/(blocks\.\d+\.\d(?:\.\w+)?|linear)"):
        name = re.sub(r"blocks\.(\d+)\.0", r"block\1", match[1])
        name = re.sub(r"blocks\.(\d+)\.1", r"attention\1", name).replace(".", "/")
        original.close(found[name], key, "intermediate")
    following = original.activations(_latent(original, 1))[f"stage{stages - 1}"]
    original.close(following, "out/image_next_class", "forward")


def test_original_weights_in_use(original: GoldenNetwork) -> None:
    stored = _stored(original)
    for key, match in original.keys(r"out/effective_(.+)"):
        (layer,) = original.generator.find_layers([match[1]])
        ours = as_original(params_lib.get(original.params, layer.path))
        testing.assert_close(ours, original.data[key], 1e-5)
        sigma = original.data[f"out/sigma_{match[1]}"]
        testing.assert_close(stored[match[1]] / ours, np.broadcast_to(sigma, ours.shape), 1e-3)


def test_original_gradients(original: GoldenNetwork) -> None:
    """By weights, z, the embedded class and the attention's factor; then in float64."""
    names = original.case.info["grad_weight_keys"]
    layers, stored = original.generator.find_layers(names), _stored(original)
    gamma = next(path for path in params_lib.flatten(original.params) if path.endswith("gamma"))
    cotangent, latent = nhwc(original.data["in/cotangent"]), _latent(original)
    paths = [layer.path for layer in layers] + [gamma]
    _, by_weights, by_latent = original.gradients(latent, cotangent, paths)
    z_dim = original.generator.space.movable
    original.close(by_latent[:, :z_dim], "grad/z", "grad")
    # The embedding is linear in the label, so its own gradient gives that of the label.
    embedding = np.asarray(original.params["shared"]["kernel"])
    expected = original.data["grad/class_embedding"] @ embedding.T
    testing.assert_close(by_latent[:, z_dim:], expected, original.case.tolerance["grad"])
    original.close_as_it_is(by_weights[gamma].reshape(()), "grad/attention.gamma", "grad")
    epsilon = original.case.info["architecture"]["SN_eps"]
    for layer in layers:
        weight, u = (stored[f"{layer.original_name[:-6]}{part}"] for part in ("weight", "u0"))
        _, pull = jax.vjp(lambda w, u=u: _divided_by_step(w, u[0], epsilon), jnp.asarray(weight))
        (ours,) = pull(jnp.asarray(as_original(by_weights[layer.path])))
        original.close_as_it_is(ours, f"grad/{layer.original_name}", "grad")
    with jax.enable_x64(True):
        images, _, by_latent = original.gradients(latent, cotangent, [], np.float64)
        original.close_loosely(images, "f64/image")
        original.close_loosely(by_latent[:, :z_dim], "f64/grad_z")


def test_deep_images_at_every_truncation(deep: dict[str, GoldenNetwork]) -> None:
    """Also where rounding makes the original take a neighbouring entry; and a mixed class."""
    for text, golden in deep.items():
        label = golden.data["in/class_onehot"]
        latent = np.concatenate([golden.data[f"in/z_trunc{text}"], label], axis=1)
        images = jax.jit(golden.generator.synthesize)(golden.params, latent)
        golden.close(images, f"out/image_trunc{text}", "forward")
    text, golden = next(iter(deep.items()))
    latent = np.concatenate(
        [golden.data[f"in/z_trunc{text}"], golden.data["in/class_soft"]], axis=1
    )
    images = jax.jit(golden.generator.synthesize)(golden.params, latent)
    golden.close(images, f"out/image_soft_trunc{text}", "forward")


def _deep_latent(golden: GoldenNetwork, text: str) -> np.ndarray:
    parts = golden.data[f"in/z_trunc{text}"], golden.data["in/class_onehot"]
    return np.concatenate(parts, axis=1)


def test_deep_activations(deep: dict[str, GoldenNetwork]) -> None:
    text, golden = next(iter(deep.items()))
    found = golden.activations(_deep_latent(golden, text))
    names = {"embeddings": "embed", "gen_z": "gen_z", "bn": "norm", "conv_to_rgb": "image"}
    for key, match in golden.keys(rf"act/(.+)_trunc{re.escape(text)}"):
        name = names.get(match[1], match[1].replace("layers.", "layer").replace(".", "/"))
        golden.close(found[name], key, "intermediate")


def test_deep_gradients(deep: dict[str, GoldenNetwork]) -> None:
    text, golden = next(iter(deep.items()))
    stored, latent = _stored(golden), _deep_latent(golden, text)
    names = [name.removesuffix("_orig") for name in golden.case.info["grad_weight_keys"]]
    layers = golden.generator.find_layers([*names, "generator.gen_z.weight"])
    cotangent, z_dim = nhwc(golden.data["in/cotangent"]), golden.generator.space.movable
    _, by_weights, by_latent = golden.gradients(latent, cotangent, [each.path for each in layers])
    golden.close(by_latent[:, :z_dim], f"grad/z_trunc{text}", "grad")
    golden.close(by_latent[:, z_dim:], f"grad/class_trunc{text}", "grad")
    for layer in layers:
        name = layer.original_name
        weight, u, v = (stored[f"{name}_{part}"] for part in ("orig", "u", "v"))
        _, pull = jax.vjp(lambda w, u=u, v=v: _divided(w, u, v), jnp.asarray(weight))
        (ours,) = pull(jnp.asarray(as_original(by_weights[layer.path])))
        key = f"grad/{name}_orig"
        if f"{key}_trunc{text}" in golden.data:
            golden.close_as_it_is(ours, f"{key}_trunc{text}", "grad")
        else:
            norm = golden.data[f"{key}_norm_trunc{text}"]
            testing.assert_close(np.linalg.norm(ours), norm, golden.case.tolerance["grad"])
            golden.close_as_it_is(ours[:8], f"{key}_first8rows_trunc{text}", "grad")
    with jax.enable_x64(True):
        images, _, by_latent = golden.gradients(latent, cotangent, [], np.float64)
        golden.close_loosely(images, f"f64/image_trunc{text}")
        golden.close_loosely(by_latent[:, :z_dim], f"f64/grad_z_trunc{text}")
