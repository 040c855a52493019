"""A golden case of a converted network: its arrays, and the network with its activations."""

import argparse
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import read_generator
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks import NETWORKS


class GoldenNetwork:
    """A case of the index, converted by the command as a user converts it."""

    def __init__(
        self,
        name: str,
        kind: str,
        options: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.case = testing.golden_case(name)
        self.data = self.case.arrays("data")
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/network.safetensors"
            parser = argparse.ArgumentParser()
            NETWORKS[kind].add_arguments(parser)
            parsed = parser.parse_args([str(self.case.path("checkpoint")), *arguments])
            parsed.out = out
            NETWORKS[kind].convert(parsed, read_foreign)
            self.generator, self.params = read_generator(pathlib.Path(out), options)

    def close(self, actual: Any, key: str, quantity: str) -> None:
        """Compares NHWC images or kernels in our order with an array in the original's order."""
        expected = self.data[key]
        actual = np.asarray(actual)
        if actual.ndim == 4:
            actual = np.moveaxis(actual, -1, 1)
        tolerance = 1e-6 if key.startswith("f64/") else self.case.tolerance[quantity]
        testing.assert_close(actual[: len(expected)], expected, tolerance, key)

    def close_as_it_is(self, actual: Any, key: str, quantity: str) -> None:
        """Compares an array that is in the original's order already."""
        testing.assert_close(actual, self.data[key], self.case.tolerance[quantity], key)

    def close_loosely(self, actual: Any, key: str) -> None:
        """Compares float64 with float64, where the weights in use are rounded to float32."""
        actual = np.asarray(actual)
        actual = np.moveaxis(actual, -1, 1) if actual.ndim == 4 else actual
        testing.assert_close(actual, self.data[key], 1e-5, key)

    def close_latent(self, actual: Any, key: str, quantity: str) -> None:
        """Compares latents [count, z]; some originals have them as [count, z, 1, 1]."""
        tolerance = 1e-6 if key.startswith("f64/") else self.case.tolerance[quantity]
        expected = self.data[key]
        testing.assert_close(actual, expected.reshape(len(expected), -1), tolerance, key)

    def keys(self, pattern: str) -> list[tuple[str, re.Match[str]]]:
        """Returns (key, match) of the arrays whose whole name fits the pattern; at least one."""
        found = [(key, match) for key in self.data if (match := re.fullmatch(pattern, key))]
        assert found, f"no array fits {pattern}"
        return found

    def activations(self, latent: Any) -> dict[str, Any]:
        """Returns the output of each submodule by its path, and of stage i as `stage{i}`."""

        def run(params: Any, latent: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            carry = latent
            for stage in range(self.generator.stages):
                carry, state = self.generator.network.apply(
                    {"params": params},
                    carry,
                    stage,
                    stage + 1,
                    method="run",
                    capture_intermediates=True,
                    mutable="intermediates",
                )
                flat = params_lib.flatten(state.get("intermediates", {}))
                for path, outputs in flat.items():
                    found[path.removesuffix("/__call__")] = outputs[0]
                found[f"stage{stage}"] = carry[0] if isinstance(carry, tuple) else carry
            return found

        return jax.jit(run)(self.params, latent)

    def gradients(
        self, latent: Any, cotangent: Any, paths: Sequence[str], dtype: Any = jnp.float32
    ) -> tuple[Any, dict[str, Any], Any]:
        """Returns the images, and the gradients of sum(cotangent * images): weights, latent."""
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self.params)
        latent, cotangent = jnp.asarray(latent, dtype), jnp.asarray(cotangent, dtype)

        def run(weights: dict[str, Any], latent: Any) -> Any:
            changed = params
            for path, weight in weights.items():
                changed = params_lib.replace(changed, path, weight)
            images = self.generator.synthesize(changed, latent)
            return jnp.sum(images * cotangent), images

        weights = {path: params_lib.get(params, path) for path in paths}
        derivative = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))
        (by_weights, by_latent), images = derivative(weights, latent)
        return images, by_weights, by_latent


def nhwc(array: np.ndarray) -> np.ndarray:
    """Returns images NCHW as NHWC."""
    return np.moveaxis(array, 1, -1)


def as_original(kernel: Any) -> np.ndarray:
    """Returns a kernel HWIO as OIHW, and a dense weight [in, out] as [out, in]."""
    array = np.asarray(kernel)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
