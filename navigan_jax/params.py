"""Parameter trees addressed by slash paths: get, replace, add, compare, digest.

A parameter tree is a nested mapping with strings as keys and arrays as leaves, as Flax makes it. A
path joins the keys with slashes, e.g. "conv1/kernel". No function changes a tree in place.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Params
from navigan_jax.errors import InputError


def flatten(params: Params) -> dict[str, Any]:
    """Returns {path: leaf}, ordered by path."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                visit(f"{prefix}/{key}" if prefix else key, child)
        else:
            flat[prefix] = node

    visit("", params)
    return dict(sorted(flat.items()))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested tree of {path: leaf}.

    Raises: InputError if a path is a leaf and a branch at once.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        *parents, name = path.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or name in node:
            raise InputError(
                f"parameters: expected each path to be a leaf or a branch; got {path!r} as both; "
                "the file is damaged: convert it anew"
            )
        node[name] = leaf
    return tree


def get(params: Params, path: str) -> Array:
    """Returns the leaf at `path`.

    Raises: ValueError for an unknown path; the message lists the paths.
    """
    flat = flatten(params)
    if path not in flat:
        raise ValueError(f"params: no leaf at {path!r}; paths: {', '.join(flat)}")
    return flat[path]


def replace(params: Params, path: str, leaf: Array) -> dict[str, Any]:
    """Returns the tree with `leaf` at `path`; all other leaves are the same objects.

    Raises: ValueError if the path is unknown or the shapes differ; the message names both shapes.
    """
    _get_like(params, path, leaf)
    return unflatten(flatten(params) | {path: leaf})


def add(params: Params, path: str, delta: Array) -> dict[str, Any]:
    """Returns the tree with `delta` added to the leaf at `path`.

    Raises: as `replace`.
    """
    return replace(params, path, _get_like(params, path, delta) + delta)


def _get_like(params: Params, path: str, array: Array) -> Array:
    """Returns the leaf at `path`, which must have the shape of `array`: nothing is broadcast."""
    leaf = get(params, path)
    if jnp.shape(array) != jnp.shape(leaf):
        raise ValueError(f"params: {path!r} has shape {jnp.shape(leaf)}; got {jnp.shape(array)}")
    return leaf


def digest(params: Params) -> str:
    """Returns the SHA-256 (hex) of all paths, dtypes, shapes and bytes of the tree."""
    state = hashlib.sha256()
    for path, leaf in flatten(params).items():
        array = np.asarray(leaf)
        state.update(f"{path}\0{array.dtype.str}\0{array.shape}\0".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def non_finite_paths(params: Params) -> list[str]:
    """Returns the paths of the leaves that hold a NaN or an infinity."""
    return [path for path, leaf in flatten(params).items() if not np.isfinite(leaf).all()]


def describe_differences(expected: Params, got: Params) -> list[str]:
    """Returns a line for each path that is missing, unexpected or of another shape.

    Leaves only need a shape, so `expected` may hold `jax.ShapeDtypeStruct`s.
    """
    left, right = flatten(expected), flatten(got)
    lines = [f"missing {path} {tuple(left[path].shape)}" for path in left if path not in right]
    lines += [f"unexpected {path} {tuple(right[path].shape)}" for path in right if path not in left]
    lines += [
        f"{path}: expected shape {tuple(left[path].shape)}, got {tuple(right[path].shape)}"
        for path in left
        if path in right and tuple(left[path].shape) != tuple(right[path].shape)
    ]
    return lines


def to_device(params: Params) -> Params:
    """Returns the tree with every leaf as a JAX array."""
    return jax.tree.map(jnp.asarray, params)
