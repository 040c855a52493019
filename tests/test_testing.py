"""The helpers that other tests rely on: they must be able to fail."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing


def test_assert_close_measures_by_the_root_mean_square():
    """An error of 0.1 on values of size 10 is 0.01; a tighter tolerance, NaN or a shape fails."""
    desired = np.array([10.0, -10.0])
    testing.assert_close(desired + np.array([0.1, 0.0]), desired, 0.0101)
    with pytest.raises(AssertionError, match=r"x: relative error 0\.01 exceeds 0\.0099"):
        testing.assert_close(desired + np.array([0.1, 0.0]), desired, 0.0099, "x")
    with pytest.raises(AssertionError, match="1 values not finite"):
        testing.assert_close([np.nan, -10.0], desired, 1.0)
    with pytest.raises(AssertionError, match="shape"):
        testing.assert_close(desired[:1], desired, 1.0)


def test_assert_close_needs_a_scale_for_zeros():
    """Zeros alone have no scale."""
    with pytest.raises(AssertionError, match="give the scale"):
        testing.assert_close([0.0], [0.0], 1.0)
    testing.assert_close([1e-7], [0.0], 1e-6, scale=1.0)


def test_fill_state_dict_depends_on_name_start_and_shape_alone():
    """Tensors can be drawn in any order and selection; counters are 0, variances positive."""
    shapes = {"bn.weight": (5,), "bn.running_var": (50,), "conv.weight": (4, 3, 5, 5)}
    shapes |= {"bn.num_batches_tracked": ()}
    together = testing.fill_state_dict(shapes, 7)
    for name, shape in shapes.items():
        alone = testing.fill_state_dict({name: shape}, 7)[name]
        np.testing.assert_array_equal(alone, together[name])
        assert alone.dtype == np.float32
        assert alone.shape == shape
    assert together["bn.num_batches_tracked"] == 0
    assert np.all((together["bn.running_var"] >= 0.5) & (together["bn.running_var"] <= 1.5))
    other = testing.fill_state_dict(shapes, 8)["conv.weight"]
    assert not np.allclose(other, together["conv.weight"])


def test_missing_golden_data_is_named(tmp_path, monkeypatch):
    """The failure names the missing folder, case or file."""
    monkeypatch.setenv("NAVIGAN_GOLDEN_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"index\.json is missing"):
        testing.golden_case("some_case")
    other = tmp_path / "other"
    other.mkdir()
    index = {
        "cases": {"some_case": {"files": {"data": "a.npz"}}},
        "files": {"a.npz": {"sha256": ""}},
    }
    (other / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("NAVIGAN_GOLDEN_DIR", str(other))
    with pytest.raises(ValueError, match="no case 'another'; it has some_case"):
        testing.golden_case("another")
    with pytest.raises(FileNotFoundError, match=r"case some_case needs .*a\.npz, which is missing"):
        testing.golden_case("some_case").arrays("data")


def test_golden_cases_are_found_by_their_program_whatever_their_names(tmp_path, monkeypatch):
    """If there is none, the failure lists the known programs."""
    sources = {"b": ("x/one", "Net"), "new": ("x/one", "Net"), "c": ("x/one", "Other")}
    index = {
        "cases": {
            name: {"source": {"repository": repository, "classes": classes}}
            for name, (repository, classes) in sources.items()
        }
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("NAVIGAN_GOLDEN_DIR", str(tmp_path))
    assert testing.golden_names("x/one: Net") == ["b", "new"]
    assert testing.golden_names("x/one") == ["b", "new", "c"]
    with pytest.raises(ValueError, match=r"no case of 'x/two'; it has .*x/one: Other"):
        testing.golden_names("x/two")


def test_changed_golden_data_are_refused(tmp_path, monkeypatch):
    """A file whose SHA-256 differs from the index is not read."""
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    index = {"cases": {"c": {"files": {"data": "a.npz"}}}, "files": {"a.npz": {"sha256": "0" * 64}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("NAVIGAN_GOLDEN_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="was changed; copy it anew"):
        testing.golden_case("c").arrays("data")


def test_x64_ends_with_its_block():
    """64-bit numbers inside, 32-bit numbers after it, also after an error."""
    with pytest.raises(KeyError), testing.x64():
        assert jnp.ones(1, np.float64).dtype == np.float64
        raise KeyError
    assert jnp.ones(1).dtype == np.float32
