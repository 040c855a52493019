"""Every checkpoint of the golden data is read, equal to its arrays where those are stored too.

The folder may hold some of the checkpoints that its index lists; those that are there are read.
"""

import numpy as np
import pytest

from navigan_jax.testing import golden_case, golden_names
from tests.tools.converting import arrays_of, named_arrays, read_nvidia
from tools.convert_weights.inspect_file import describe_file
from tools.convert_weights.readers.torch_file import read_torch

pytestmark = pytest.mark.golden

CASES = {name: golden_case(name) for name in golden_names("")}
HESSIANS = golden_names("yandex-research/navigan: hessian_power_iteration.HVP_forward")
SNGANS = golden_names("yandex-research/navigan and anvoynov/GANLatentDiscovery")
TENSORFLOW = golden_names("layout of NVlabs/stylegan2 ")


def _is_there(name: str, role: str) -> bool:
    case = CASES[name]
    return (case.folder / case.info["files"].get(role, "absent")).exists()


def _checkpoints() -> list[tuple[str, str]]:
    """Returns (case, role) of each present checkpoint, each file once."""
    files = {
        file: (name, role)
        for name, case in CASES.items()
        for role, file in case.info["files"].items()
        if file.endswith((".pt", ".pth", ".bin", ".pkl")) and _is_there(name, role)
    }
    return list(files.values())


@pytest.mark.parametrize(("case", "role"), _checkpoints())
def test_checkpoint_is_read(case: str, role: str) -> None:
    """Its arrays are finite and make a known architecture; they equal those stored beside it."""
    path = CASES[case].path(role)
    if path.suffix == ".pkl":
        groups = {name: arrays_of(network) for name, network in read_nvidia(path).items()}
        assert {"G", "D"} < set(groups)
        arrays = {f"{name}.{key}": value for name in groups for key, value in groups[name].items()}
    else:
        groups = read_torch(path)
        arrays = named_arrays(groups)
    assert arrays
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert "UNREADABLE" not in (text := describe_file(path).text)
    assert "architecture  unknown" not in text
    if role == "checkpoint" and _is_there(case, "weights"):
        state = groups["G_ema" if path.suffix == ".pkl" else "g_ema"]
        _assert_same(state, CASES[case].arrays("weights"))


def _assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("name", HESSIANS)
def test_zip_and_stream_hold_the_same(name: str) -> None:
    """The eigenvectors are stored in both containers."""
    case = CASES[name]
    whole, legacy = (
        read_torch(case.path(role)) for role in ("eigenvectors", "eigenvectors_legacy")
    )
    assert whole.shape == legacy.shape
    np.testing.assert_array_equal(whole, legacy)


@pytest.mark.parametrize("name", [name for name in SNGANS if _is_there(name, "checkpoint")])
def test_weight_under_two_names_is_one_memory(name: str) -> None:
    """SNGAN registers its convolutions twice; the file has one storage for both."""
    state = read_torch(CASES[name].path("checkpoint"))
    assert np.shares_memory(state["model.2.conv1.weight"], state["model.2.model.3.weight"])
    assert not np.shares_memory(state["model.2.conv1.weight"], state["model.2.conv2.weight"])


@pytest.mark.parametrize("name", TENSORFLOW)
def test_pytorch_and_tensorflow_pickles_hold_the_same(name: str) -> None:
    """One network in both formats: dense weights are transposed, kernels are HWIO and OIHW."""
    twin = CASES[CASES[name].info["same_weights_as"]]
    ours = arrays_of(read_nvidia(twin.path("checkpoint"))["G_ema"])
    theirs = arrays_of(read_nvidia(CASES[name].path("checkpoint"))["Gs"])
    np.testing.assert_array_equal(ours["mapping.fc1.weight"], theirs["mapping/Dense1/weight"].T)
    np.testing.assert_array_equal(ours["mapping.w_avg"], theirs["dlatent_avg"])
    np.testing.assert_array_equal(
        ours["synthesis.b8.conv1.weight"],
        theirs["synthesis/8x8/Conv1/weight"].transpose(3, 2, 0, 1),
    )
