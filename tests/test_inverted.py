import dataclasses

import numpy as np
import pytest

from navigan_jax import checkpoints, inverted
from navigan_jax.errors import InputError
from navigan_jax.inverted import Inverted, read_inverted, write_inverted

RANDOM = np.random.RandomState(0)
SHAPES = {"z": (7,), "w_plus": (4, 5)}
PARAMS = {"conv": {"kernel": np.zeros((3, 3, 2, 2), np.float32)}}


def draw(count=2, **changes):
    found = Inverted(
        names=[f"photo{i}.jpg" for i in range(count)],
        sha256=["ab" * 32] * count,
        space="w_plus",
        latents=RANDOM.standard_normal((count, 4, 5)).astype(np.float32),
        changes={"conv/kernel": RANDOM.standard_normal((count, 3, 3, 2, 2)).astype(np.float32)},
        corners=RANDOM.uniform(0, 9, (count, 4, 2)),
        measures={"mse": RANDOM.uniform(size=count), "psnr": np.full(count, np.inf)},
        provenance={"architecture": "a", "digest": "d", "method": "m", "metric": "l2"},
    )
    return dataclasses.replace(found, **changes)


def test_file_reads_back_equal(tmp_path):
    written = draw()
    write_inverted(tmp_path / "a.safetensors", written)
    found = read_inverted(tmp_path / "a.safetensors", digest="d")
    for field in dataclasses.fields(Inverted):
        old, new = getattr(written, field.name), getattr(found, field.name)
        if field.name in ("changes", "measures"):
            assert old.keys() == new.keys()
            for key in old:
                np.testing.assert_array_equal(new[key], old[key])
        else:
            np.testing.assert_array_equal(new, old)
    assert inverted.digest(found) == inverted.digest(written)
    assert inverted.digest(found) != inverted.digest(draw())
    np.testing.assert_array_equal(
        found.edit(1).deltas["conv/kernel"], written.changes["conv/kernel"][1]
    )


def test_parts_join_in_order():
    parts = [draw(1), draw(2)]
    whole = inverted.join(parts)
    assert len(whole) == len(whole.names) == len(whole.sha256) == 3
    np.testing.assert_array_equal(whole.latents[1:], parts[1].latents)
    np.testing.assert_array_equal(
        whole.changes["conv/kernel"][0], parts[0].changes["conv/kernel"][0]
    )


def test_other_weights_are_refused(tmp_path):
    write_inverted(tmp_path / "a.safetensors", draw())
    with pytest.raises(InputError, match="found in the weights other"):
        read_inverted(tmp_path / "a.safetensors", digest="other")
    assert len(read_inverted(tmp_path / "a.safetensors", digest=None)) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latents": np.zeros((3, 4, 5), np.float32)}, "latents of 2"),
        ({"latents": np.full((2, 4, 5), np.nan, np.float32)}, "NaN"),
        ({"latents": np.zeros((2, 4, 5), np.int32)}, "int32"),
        ({"corners": np.zeros((2, 3))}, "corners"),
        ({"space": "x"}, "space 'x'"),
        ({"sha256": []}, "a digest of each"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, told):
    write_inverted(tmp_path / "a.safetensors", draw(**change))
    with pytest.raises(InputError, match=told):
        read_inverted(tmp_path / "a.safetensors", digest=None)


def test_files_of_other_kinds_are_refused(tmp_path):
    checkpoints.write_arrays(tmp_path / "a.safetensors", {}, {"format": "navigan_jax.directions"})
    with pytest.raises(InputError, match=r"navigan_jax\.inverted"):
        read_inverted(tmp_path / "a.safetensors", digest=None)
    with pytest.raises(ValueError, match="provenance"):
        write_inverted(tmp_path / "b.safetensors", draw(provenance={}))


def test_photographs_of_another_size_are_refused():
    inverted.require_fit("a", draw(), PARAMS, SHAPES)
    with pytest.raises(InputError, match="latents"):
        inverted.require_fit("a", draw(), PARAMS, {"w_plus": (6, 5)})
    with pytest.raises(InputError, match="conv/kernel"):
        inverted.require_fit("a", draw(), {}, SHAPES)
