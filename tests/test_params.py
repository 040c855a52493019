"""Parameter trees: only the named leaf changes, and equal trees have equal digests."""

import copy
import hashlib

import flax.core
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError

PATHS = ["conv1/kernel", "conv10/kernel", "norm/stats/mean", "top"]


@pytest.fixture
def tree():
    return {
        "top": np.float32(1.5) * np.ones(()),
        "norm": {"stats": {"mean": np.arange(3, dtype=np.float64)}},
        "conv10": {"kernel": jnp.full((2, 3), 10.0)},
        "conv1": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
    }


def test_flatten_and_unflatten_are_inverse(tree):
    """Paths are sorted, leaves are the same objects, and any mapping is a tree."""
    flat = params_lib.flatten(tree)
    assert list(flat) == PATHS
    assert flat["norm/stats/mean"] is tree["norm"]["stats"]["mean"]
    again = params_lib.unflatten(flat)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (again, tree)), strict=True))
    assert list(params_lib.flatten(flax.core.freeze(tree))) == PATHS


@pytest.mark.parametrize("paths", [("a/b", "a"), ("a", "a/b"), ("a", "a/b/c"), ("a/b/c", "a/b")])
def test_a_path_is_no_leaf_and_branch_at_once(paths):
    """Either order of the two is refused as damaged."""
    with pytest.raises(InputError, match=r"a leaf or a branch; got '.*' as both; .* convert it"):
        params_lib.unflatten(dict.fromkeys(paths, np.zeros(1)))


@pytest.mark.parametrize("path", ["conv2/kernel", "conv1", "norm/stats", "conv1/kernel/x", ""])
def test_unknown_path_is_told_with_the_known_ones(tree, path):
    """A branch is not a leaf."""
    for use in (
        lambda: params_lib.get(tree, path),
        lambda: params_lib.replace(tree, path, np.zeros(())),
        lambda: params_lib.add(tree, path, np.zeros(())),
    ):
        with pytest.raises(ValueError, match=f"no leaf at {path!r}; paths: {', '.join(PATHS)}"):
            use()


@pytest.mark.parametrize("path", PATHS)
def test_replace_and_add_change_one_leaf(tree, path):
    """All other leaves are the same objects, and the argument does not change."""
    before = copy.deepcopy(jax.tree.map(np.asarray, tree))
    leaf = params_lib.get(tree, path)
    replaced = params_lib.replace(tree, path, -leaf)
    added = params_lib.add(tree, path, 2 * leaf)
    np.testing.assert_array_equal(params_lib.get(replaced, path), -leaf)
    np.testing.assert_array_equal(params_lib.get(added, path), 3 * leaf)
    for other in set(PATHS) - {path}:
        assert params_lib.get(replaced, other) is params_lib.get(tree, other)
        assert params_lib.get(added, other) is params_lib.get(tree, other)
    jax.tree.map(np.testing.assert_array_equal, tree, before)
    assert jax.tree.structure(added) == jax.tree.structure(tree)


@pytest.mark.parametrize("shape", [(3, 2), (3,), (1, 3), (), (2, 3, 1)])
def test_nothing_is_broadcast(tree, shape):
    """A leaf of another shape is refused, even if NumPy would broadcast it; both are named."""
    for change in (params_lib.replace, params_lib.add):
        with pytest.raises(
            ValueError, match=r"'conv1/kernel' has shape \(2, 3\); got \("
        ) as caught:
            change(tree, "conv1/kernel", np.zeros(shape, np.float32))
        assert str(caught.value).endswith(str(shape))


def test_add_is_differentiable(tree):
    """d/dδ <w, θ + δ> = w, under jit."""
    w = jnp.asarray([[1.0, -2.0, 3.0], [0.5, 0.0, 4.0]])

    @jax.jit
    def objective(delta):
        return jnp.vdot(w, params_lib.add(tree, "conv1/kernel", delta)["conv1"]["kernel"])

    np.testing.assert_array_equal(jax.grad(objective)(jnp.zeros((2, 3))), w)


def test_digest_is_that_of_paths_types_shapes_and_bytes():
    """Files store the digest, so its rule may not change."""
    mean = np.array([1.0, -2.0], "<f4")
    text = b"norm/mean\0<f4\0(2,)\0" + mean.tobytes() + b"top\0<i8\0()\0" + bytes([7] + 7 * [0])
    tree = {"top": np.array(7, "<i8"), "norm": {"mean": mean}}
    assert params_lib.digest(tree) == hashlib.sha256(text).hexdigest()


def test_digest_depends_on_nothing_else(tree):
    """Not on order, memory layout or the library of the arrays."""
    other = {key: tree[key] for key in reversed(tree)}
    other["conv1"] = {"kernel": jnp.asarray(np.asfortranarray(tree["conv1"]["kernel"]))}
    other["conv10"] = {"kernel": np.asfortranarray(tree["conv10"]["kernel"])}
    assert params_lib.digest(flax.core.freeze(other)) == params_lib.digest(tree)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("conv1/kernel", lambda x: np.nextafter(x, np.float32(9))),
        ("conv1/kernel", lambda x: x.astype(np.float64)),
        ("conv1/kernel", lambda x: x.reshape(3, 2)),
        ("conv1/kernel", lambda x: -x * 0),
        ("conv1/kernel", lambda x: x * 0),
        ("norm/stats/mean", lambda x: x[::-1]),
        ("norm/stats/mean", lambda x: x.view(np.int64)),
    ],
)
def test_digest_sees_every_change(tree, path, change):
    """Last bit, dtype, shape, sign of zero, order of entries, the same bits as another dtype."""
    flat = params_lib.flatten(tree)
    digests = {
        params_lib.digest(params_lib.unflatten(flat | other))
        for other in ({}, {path: change(flat[path])}, {path: change(flat[path]) + 1})
    }
    assert len(digests) == 3


def test_digest_sees_the_path(tree):
    """The same leaf at another path is another tree."""
    moved = {("bottom" if key == "top" else key): value for key, value in tree.items()}
    assert params_lib.digest(moved) != params_lib.digest(tree)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_leaves_that_are_not_finite_are_found(tree, bad, dtype):
    """In all float types; integers are always finite."""
    assert params_lib.non_finite_paths(tree) == []
    values = np.array([0, bad], dtype)
    tree = {**tree, "norm": {"stats": {"mean": values}}, "top": np.arange(3)}
    assert params_lib.non_finite_paths(tree) == ["norm/stats/mean"]


def test_differences_are_described_by_path_and_shape(tree):
    """Missing, unexpected and of another shape; shapes without values are enough."""
    expected = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    assert params_lib.describe_differences(expected, tree) == []
    got = {**tree, "extra": {"bias": np.zeros(5)}, "conv1": {"kernel": np.zeros((3, 2))}}
    del got["norm"]
    assert params_lib.describe_differences(expected, got) == [
        "missing norm/stats/mean (3,)",
        "unexpected extra/bias (5,)",
        "conv1/kernel: expected shape (2, 3), got (3, 2)",
    ]


def test_to_device_keeps_the_numbers(tree):
    """Every leaf becomes a JAX array."""
    moved = params_lib.to_device(tree)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, moved, tree)
