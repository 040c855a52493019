"""Convolutions and dense layers with a bias: padding, stride, and weights of single samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.nn.affine import Conv, Dense

BATCH, INPUTS, OUTPUTS = 2, 3, 4
CONVS = {
    "zeros": Conv(OUTPUTS, 3, padding=1),
    "mirrored": Conv(OUTPUTS, 3, padding=1, mirrored=True),
    "mirrored wide": Conv(OUTPUTS, 7, padding=3, mirrored=True),
    "stride": Conv(OUTPUTS, 3, stride=2, padding=1),
    "even": Conv(OUTPUTS, 4, padding=3),
    "none": Conv(OUTPUTS, 3),
    "pixel": Conv(OUTPUTS, 1),
    "no bias": Conv(OUTPUTS, 3, padding=1, use_bias=False),
}


def _definition(layer: Conv, x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    margin = (layer.padding, layer.padding)
    mode = "reflect" if layer.mirrored else "constant"
    x = np.pad(x, ((0, 0), margin, margin, (0, 0)), mode)
    side, stride = layer.side, layer.stride
    rows, columns = (range(0, length - side + 1, stride) for length in x.shape[1:3])
    out = np.stack(
        [
            np.stack(
                [
                    np.einsum(
                        "bkli,klio->bo",
                        x[:, row : row + side, column : column + side],
                        params["kernel"],
                    )
                    for column in columns
                ],
                axis=1,
            )
            for row in rows
        ],
        axis=1,
    )
    return out + params.get("bias", 0.0)


@pytest.mark.parametrize("name", CONVS)
def test_convolution_is_its_definition(name: str) -> None:
    """By convolution and by matrix product; then with a weight of its own for each sample."""
    layer = CONVS[name]
    x = np.random.RandomState(0).standard_normal((BATCH, 6, 5, INPUTS)).astype(np.float32)
    params = testing.normal_like(1, layer.init(jax.random.key(0), x)["params"])
    expected = _definition(layer, x, jax.tree.map(np.asarray, params))
    changes = testing.normal_like(2, jnp.zeros((BATCH, *params["kernel"].shape)))
    plain = jax.tree.map(np.asarray, params)
    changed = np.concatenate(
        [
            _definition(
                layer, x[i : i + 1], {**plain, "kernel": plain["kernel"] + np.asarray(changes[i])}
            )
            for i in range(BATCH)
        ]
    )
    for by_matmul in (False, True):
        form = dataclasses.replace(layer, by_matmul=by_matmul)
        testing.assert_close(form.apply({"params": params}, x), expected, 1e-5)
        variables = {"params": params, "changes": {"kernel": changes}}
        testing.assert_close(form.apply(variables, x), changed, 1e-5)


@pytest.mark.parametrize("use_bias", [False, True])
def test_dense_layer_is_its_definition(use_bias: bool) -> None:
    """Then with a weight of its own for each sample."""
    layer = Dense(OUTPUTS, use_bias)
    x = np.random.RandomState(0).standard_normal((BATCH, INPUTS)).astype(np.float32)
    params = testing.normal_like(1, layer.init(jax.random.key(0), x)["params"])
    bias = params["bias"][None] if use_bias else 0.0
    testing.assert_close(layer.apply({"params": params}, x), x @ params["kernel"] + bias, 1e-6)
    changes = testing.normal_like(2, jnp.zeros((BATCH, INPUTS, OUTPUTS)))
    got = layer.apply({"params": params, "changes": {"kernel": changes}}, x)
    expected = np.einsum("bi,bio->bo", x, params["kernel"][None] + changes) + bias
    testing.assert_close(got, expected, 1e-6)
