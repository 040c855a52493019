"""Files of directions: reading returns the same bits, and refuses damaged or foreign files."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from navigan_jax import checkpoints
from navigan_jax.directions import Directions, read_directions, require_fit, write_directions
from navigan_jax.errors import InputError

DIGEST, OTHER = "a" * 64, "b" * 64
PROVENANCE = {
    "architecture": "dcgan",
    "digest": DIGEST,
    "method": "hessian, lanczos",
    "metric": "lpips",
    "seed": "0",
    "latents": "64",
    "products": "120",
    "config": '{"note": "ξ"}',
}
COUNT = 3


def make():
    """Directions in two layers that are not in alphabetical order."""
    random = np.random.RandomState(0)
    joint, _ = np.linalg.qr(random.standard_normal((30, COUNT)))
    joint = joint.T.astype(np.float32)
    return Directions(
        basis={
            "conv2/kernel": joint[:, :12].reshape(COUNT, 2, 2, 3, 1),
            "conv1/kernel": joint[:, 12:].reshape(COUNT, 3, 3, 2, 1),
        },
        measures={
            "eigenvalue": np.array([3.0, 1.0, 0.0]),
            "residual": np.array([1e-4, 1e-3, np.inf]),  # infinite, for an eigenvalue of zero
        },
        shift_scales=random.uniform(1, 2, (COUNT, 2)),
        distances=random.uniform(1, 2, (COUNT, 2)),
        provenance=PROVENANCE,
    )


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "directions.safetensors"
    write_directions(path, make())
    return path


def rewrite(path, *, metadata=None, arrays=None, without=()):
    """Changes parts of the file without making them consistent."""
    old_arrays, old_metadata = checkpoints.read_arrays(path)
    new = {k: v for k, v in (old_arrays | (arrays or {})).items() if k not in without}
    checkpoints.write_arrays(path, new, old_metadata | (metadata or {}))


def test_read_returns_what_was_written(written):
    """Bit by bit, with dtypes, the order of the layers and the whole provenance."""
    got, expected = read_directions(written, digest=DIGEST), make()
    assert got.layers == expected.layers == ("conv2/kernel", "conv1/kernel")
    assert got.provenance == PROVENANCE
    pairs = [(got.basis[layer], expected.basis[layer]) for layer in expected.layers]
    assert list(got.measures) == list(expected.measures) == ["eigenvalue", "residual"]
    pairs += [(got.measures[name], expected.measures[name]) for name in expected.measures]
    names = ("shift_scales", "distances")
    pairs += [(getattr(got, name), getattr(expected, name)) for name in names]
    for a, b in pairs:
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def test_directions_of_other_weights_are_refused(written):
    """The message names both digests; digest=None accepts any weights."""
    with pytest.raises(InputError, match=f"weights {OTHER}; got directions of {DIGEST}; .*=None"):
        read_directions(written, digest=OTHER)
    assert len(read_directions(written, digest=None)) == COUNT


@pytest.mark.parametrize("index", range(COUNT))
def test_edit_is_one_direction_of_unit_norm(index):
    """Over all its layers together; shaped like the weights; a pytree of arrays."""
    directions = make()
    edit = directions.edit(index)
    assert tuple(edit.deltas) == directions.layers
    for layer, delta in edit.deltas.items():
        np.testing.assert_array_equal(delta, directions.basis[layer][index])
    squares = [np.sum(np.square(leaf)) for leaf in jax.tree.leaves(edit)]
    assert len(squares) == 2
    np.testing.assert_allclose(sum(squares), 1, rtol=1e-6)


@pytest.mark.parametrize("index", [-1, COUNT, COUNT + 1])
def test_unknown_direction_is_told(index):
    """The message gives the valid numbers."""
    with pytest.raises(InputError, match=f"direction: expected a number from 0 to 2; got {index}"):
        make().edit(index)


@pytest.mark.parametrize("tenth", range(10))
def test_truncated_file_is_refused(written, tenth):
    """Wherever the file ends."""
    data = written.read_bytes()
    written.write_bytes(data[: (len(data) - 1) * (tenth + 1) // 10])
    with pytest.raises(InputError, match=r"directions\.safetensors: expected a whole safetensors"):
        read_directions(written, digest=DIGEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metadata": {"format": "navigan_jax.generator"}},
            "directions; got navigan_jax.generator",
        ),
        ({"metadata": {"format_version": "0"}}, "format version 1; got 0"),
        ({"metadata": {"layers": "{"}}, "JSON under 'layers'.*a list"),
        ({"metadata": {"layers": "[]"}}, "none of layers"),
        (
            {"metadata": {"layers": '["conv5/kernel"]'}},
            "none of basis/conv5/kernel; .*make it anew",
        ),
        ({"metadata": {"provenance": "[]"}}, "JSON under 'provenance'.*a dict"),
        ({"metadata": {"provenance": "{}"}}, "none of architecture, digest, method, metric, seed"),
        (
            {"without": ["measures/eigenvalue", "distances"]},
            "none of measures/eigenvalue, distances",
        ),
        ({"metadata": {"measures": "[]"}}, "none of measures"),
        ({"metadata": {"measures": "{}"}}, "JSON under 'measures'.*a list"),
        ({"without": ["basis/conv1/kernel"]}, "none of basis/conv1/kernel"),
        (
            {"arrays": {"measures/eigenvalue": np.ones(2)}},
            r"measures/residual of 2 directions.*got shape \[3",
        ),
        (
            {"arrays": {"measures/eigenvalue": np.array(1.0)}},
            r"measures/eigenvalue of 1 directions.*got shape \[\]",
        ),
        (
            {"arrays": {"measures/residual": np.ones((3, 1))}},
            r"measures/residual of 3 .*got shape \[3, 1\]",
        ),
        ({"arrays": {"shift_scales": np.ones(3)}}, r"shift_scales of 3 .*got shape \[3\]"),
        ({"arrays": {"distances": np.ones((3, 3))}}, r"distances of 3 .*got shape \[3, 3\]"),
        (
            {"arrays": {"basis/conv1/kernel": np.ones((2, 3))}},
            r"conv1/kernel of 3 .*shape \[2, 3\]",
        ),
        ({"arrays": {"basis/conv1/kernel": np.full((3, 9), np.nan)}}, "NaN or infinity in basis/c"),
        (
            {"arrays": {"measures/eigenvalue": np.array([np.inf, 1, 0])}},
            "NaN or infinity in mea.*eig",
        ),
        (
            {"arrays": {"measures/residual": np.array([np.nan, 1, 0])}},
            "NaN or infinity in meas.*res",
        ),
        ({"metadata": {"layers": '["conv1/kernel", 3]'}}, "different names under layers; got"),
        ({"metadata": {"layers": '[["conv1/kernel"]]'}}, "different names under layers; got"),
        ({"metadata": {"measures": '["residual", "residual"]'}}, "different names under measures"),
        (
            {"metadata": {"provenance": json.dumps(PROVENANCE | {"seed": {"a": []}})}},
            "texts under provenance; got",
        ),
        (
            {"arrays": {"shift_scales": np.full((3, 2), -1.5)}},
            "shift_scales of 0 or more; got -1.5",
        ),
        (
            {"arrays": {"measures/residual": np.array([0, -1e-3, 1])}},
            "measures/residual of 0 or more; got -0.001",
        ),
        ({"arrays": {"distances": -np.eye(3)[:, :2]}}, "distances of 0 or more; got -1"),
        ({"arrays": {"plausible": -np.eye(3)[:, :2]}}, "plausible of 0 or more; got -1"),
        (
            {"arrays": {"basis/conv1/kernel": np.zeros((3, 3, 3, 2, 1), np.int8)}},
            "fractions .* in basis/conv1/kernel; got int8",
        ),
        (
            {"arrays": {"measures/residual": np.zeros(3, bool)}},
            "fractions .* in measures/residual; got bool",
        ),
        (
            {"arrays": {"basis/conv1/kernel": np.zeros((3, 9), np.float32)}},
            "directions of norm 1; got direction 0 of norm 0",
        ),
        (
            {"arrays": {"basis/conv1/kernel": np.full((3, 9), 1e30, np.float32)}},
            r"directions of norm 1; got direction 0 of norm 3e\+30",
        ),
        (
            {
                "arrays": {
                    name: np.zeros((0, *shape))
                    for name, shape in {
                        "measures/eigenvalue": (),
                        "measures/residual": (),
                        "shift_scales": (2,),
                        "distances": (2,),
                        "basis/conv1/kernel": (9,),
                        "basis/conv2/kernel": (9,),
                    }.items()
                }
            },
            r"measures/eigenvalue of some directions.*got shape \[0\]",
        ),
    ],
)
def test_damaged_file_is_refused(written, change, message):
    """The message names the file, and what is missing, of a wrong shape or not a finite number."""
    rewrite(written, **change)
    with pytest.raises(InputError, match=message) as caught:
        read_directions(written, digest=DIGEST)
    assert str(caught.value).startswith(f"{written}: ")


@pytest.mark.parametrize("key", ["architecture", "digest", "method", "metric", "config"])
def test_directions_of_unknown_origin_are_not_written(tmp_path, key):
    """Every part of the provenance is required."""
    provenance = {k: v for k, v in PROVENANCE.items() if k != key}
    path = tmp_path / "directions.safetensors"
    with pytest.raises(ValueError, match=rf"provenance lacks \['{key}'\]"):
        write_directions(path, dataclasses.replace(make(), provenance=provenance))
    assert not path.exists()


def test_provenance_is_readable_by_others(written):
    """It is JSON in the metadata, readable without this package."""
    _, metadata = checkpoints.read_arrays(written)
    assert json.loads(metadata["provenance"]) == PROVENANCE
    assert json.loads(metadata["layers"]) == ["conv2/kernel", "conv1/kernel"]


def test_header_that_claims_more_than_the_file_holds_is_refused(written):
    """No memory of that size is allocated."""
    content = written.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["distances"] = {"dtype": "F64", "shape": [2**50, 2], "data_offsets": [0, 2**54]}
    text = json.dumps(header).encode()
    written.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(InputError, match=r"directions\.safetensors: expected a whole safetensors"):
        read_directions(written, digest=DIGEST)


def test_directions_that_do_not_fit_the_weights_are_refused():
    """The message names the layer that has another shape or is missing."""
    directions = make()
    params = {
        "conv1": {"kernel": np.zeros((3, 3, 2, 1))},
        "conv2": {"kernel": np.zeros((2, 2, 3, 1))},
    }
    require_fit("a.safetensors", directions, params)
    for changed, message in (
        (
            {"conv1": {"kernel": np.zeros((3, 3, 1, 2))}},
            r"kernel of shape \[3, 3, 2, 1\], .* \[3, 3",
        ),
        ({"conv1": {}}, "conv1/kernel of .* but the generator has no such layer"),
    ):
        with pytest.raises(InputError, match=f"^a.safetensors: .*{message}"):
            require_fit("a.safetensors", directions, params | changed)
