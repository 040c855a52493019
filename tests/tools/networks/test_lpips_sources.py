"""Sources of LPIPS: which net a file holds, and where linear weights are taken from."""

import pathlib

import numpy as np
import pytest

from navigan_jax.errors import InputError
from tests.tools.crafting import state_dict_file, torch_zip, zip_archive
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks.lpips import sources as lpips_sources
from tools.convert_weights.networks.lpips.sources import collect, has_linear, net_of
from tools.convert_weights.networks.lpips.weights import LAYERS

State = dict[str, np.ndarray]
NETS = sorted(LAYERS)


def backbone(net: str, *, module: bool = False) -> State:
    """Returns tiny tensors by the names of torchvision or of the LPIPS module."""
    prefix = "net.slice1" if module else "features"
    names = []
    for index, layer in LAYERS[net].items():
        parts = ("squeeze.", "expand1x1.", "expand3x3.") if layer.startswith("fire") else ("",)
        names += [f"{prefix}.{index}.{part}{kind}" for part in parts for kind in ("weight", "bias")]
    state = {name: np.full(2, index, np.float32) for index, name in enumerate(names)}
    return state if module else state | {"classifier.6.weight": np.zeros(1, np.float32)}


def linear(value: float, *, prefix: str = "lin") -> State:
    return {f"{prefix}0.model.1.weight": np.full((1, 2, 1, 1), value, np.float32)}


def write(path: pathlib.Path, state: State, *, legacy: bool = False) -> pathlib.Path:
    path.write_bytes(state_dict_file(state, legacy=legacy))
    return path


def gather(net: str = "vgg", **options: object) -> lpips_sources.Sources:
    defaults = {"version": "0.1", "source": None, "linear_source": None, "with_linear": True}
    return collect(net, open_file=read_foreign, **(defaults | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_net_is_told_by_its_names(net: str, module: bool) -> None:
    """Each net is recognised in both spellings; a layer more or less makes it unknown."""
    state = backbone(net, module=module)
    assert net_of(state) == net
    assert net_of(state | {"features.99.weight": np.zeros(1)}) is None
    assert net_of(list(state)[2:]) is None


def test_linear_weights_are_told_by_their_names() -> None:
    """Both spellings of a saved module are recognised, and names of a backbone are not."""
    assert has_linear(linear(1))
    assert has_linear(linear(1, prefix="lins."))
    assert has_linear(["lin0.model.0.weight"])  # without dropout
    assert not has_linear(backbone("vgg"))


@pytest.mark.parametrize("net", NETS)
def test_backbone_and_linear_files_are_joined(net: str, tmp_path: pathlib.Path) -> None:
    """Both states come back as they are, with names and digests of their files."""
    source = write(tmp_path / "b.pth", backbone(net))
    weights = write(tmp_path / "l.pth", linear(3), legacy=True)
    found = gather(net, source=source, linear_source=weights)
    assert list(found.backbone) == list(backbone(net))
    assert found.linear is not None
    assert found.linear["lin0.model.1.weight"][0, 0, 0, 0] == 3
    assert (found.origin["backbone"], found.origin["linear"]) == ("b.pth", "l.pth")
    assert len(bytes.fromhex(found.origin["linear_sha256"])) == 32


def _wheel(path: pathlib.Path) -> pathlib.Path:
    members = {
        f"lpips/weights/v{version}/{net}.pth": state_dict_file(linear(float(version) + index))
        for version in ("0.0", "0.1")
        for index, net in enumerate(NETS)
    }
    path.write_bytes(zip_archive(members | {"lpips-0.dist-info/METADATA": b""}))
    return path


@pytest.mark.parametrize("version", ["0.0", "0.1"])
@pytest.mark.parametrize("net", NETS)
def test_wheel_gives_the_weights_of_net_and_version(
    net: str, version: str, tmp_path: pathlib.Path
) -> None:
    """The file of this net and version is taken from the wheel."""
    source = write(tmp_path / "b.pth", backbone(net))
    wheel = _wheel(tmp_path / "lpips.whl")
    found = gather(net, version=version, source=source, linear_source=wheel)
    assert found.linear is not None
    value = found.linear["lin0.model.1.weight"][0, 0, 0, 0]
    assert value == np.float32(float(version) + NETS.index(net))
    assert found.origin["linear_member"] == f"lpips/weights/v{version}/{net}.pth"


def test_saved_module_has_both_parts(tmp_path: pathlib.Path) -> None:
    """A state dict of LPIPS as a whole needs no other file; one that is given takes precedence."""
    source = write(tmp_path / "m.pth", backbone("alex", module=True) | linear(3))
    found = gather("alex", source=source)
    assert found.linear is found.backbone
    other = write(tmp_path / "l.pth", linear(4))
    found = gather("alex", source=source, linear_source=other)
    assert found.linear is not None
    assert found.linear["lin0.model.1.weight"][0, 0, 0, 0] == 4


def test_saved_module_is_never_completed_from_elsewhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module without linear weights is refused, not given published ones; nothing is fetched."""
    monkeypatch.setattr(lpips_sources, "fetch", lambda *_: pytest.fail("fetched"))
    source = write(tmp_path / "m.pth", backbone("alex", module=True))
    with pytest.raises(InputError, match=r"linear weights of the saved LPIPS module.*--no-linear"):
        gather("alex", source=source)
    assert gather("alex", source=source, with_linear=False).linear is None
    weights = write(tmp_path / "l.pth", linear(4))
    assert gather("alex", source=source, linear_source=weights).linear is not None
    # Some of its linear weights, or those of a module without dropout, are its own.
    part = {"lin1.model.0.weight": np.full((1, 2, 1, 1), 3, np.float32)}
    source = write(tmp_path / "p.pth", backbone("alex", module=True) | part)
    found = gather("alex", source=source)
    assert found.linear is found.backbone


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "loss.perceptual_loss.", "module.net_lpips.module."]
)
def test_module_is_found_in_a_larger_network(prefix: str, tmp_path: pathlib.Path) -> None:
    """Checkpoints of autoencoders contain it so."""
    state = backbone("vgg", module=True) | linear(3)
    whole = {f"{prefix}{key}": array for key, array in state.items()}
    whole |= {"decoder.conv_in.weight": np.ones(3, np.float32)}
    found = gather("vgg", source=write(tmp_path / "m.pth", whole))
    assert set(found.backbone) == set(state)


def test_without_linear_weights_none_are_sought(tmp_path: pathlib.Path) -> None:
    """They are not taken from a module that has some, either."""
    source = write(tmp_path / "m.pth", backbone("alex", module=True) | linear(3))
    assert gather("alex", source=source, with_linear=False).linear is None


def test_absent_files_are_fetched(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without paths the known backbone of the net and the known wheel are fetched."""
    asked = []

    def fetch(name: str, cache: object) -> pathlib.Path:
        asked.append((name, cache))
        if name.endswith(".whl"):
            return _wheel(tmp_path / name)
        return write(tmp_path / name, backbone("squeeze"))

    monkeypatch.setattr(lpips_sources, "fetch", fetch)
    found = gather("squeeze", cache="cache")
    assert asked == [
        ("squeezenet1_1-b8a52dc0.pth", "cache"),
        ("lpips-0.1.4-py3-none-any.whl", "cache"),
    ]
    assert found.origin["backbone"] == "squeezenet1_1-b8a52dc0.pth"


def test_unknown_net_is_refused() -> None:
    """The nets are listed."""
    with pytest.raises(InputError, match="got 'vgg19'; allowed: vgg, alex, squeeze"):
        gather("vgg19")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (backbone("alex"), r"expected the convolutions of vgg, .*; got alex \(features\.0\.weight"),
        (linear(1), r"got no known net: .* such as lin0\.model\.1\.weight;"),
        ({"main.0.weight": np.zeros(1, np.float32)}, "got no known net"),
    ],
    ids=["another net", "linear weights", "another network"],
)
def test_another_backbone_is_refused(state: State, message: str, tmp_path: pathlib.Path) -> None:
    """The message says which net the file holds, or which arrays."""
    source = write(tmp_path / "b.pth", state)
    with pytest.raises(InputError, match=message):
        gather("vgg", source=source)


def test_file_without_linear_weights_is_refused(tmp_path: pathlib.Path) -> None:
    """The message says how to leave them out."""
    source = write(tmp_path / "b.pth", backbone("vgg"))
    with pytest.raises(InputError, match=r"expected linear weights of LPIPS.*--no-linear"):
        gather("vgg", source=source, linear_source=source)


@pytest.mark.parametrize("content", [{"a": 3}, {3: 3}, {}, [1]])
def test_content_that_is_no_state_dict_is_refused(content: object, tmp_path: pathlib.Path) -> None:
    """Only tensors by name are a state."""
    path = tmp_path / "b.pth"
    path.write_bytes(torch_zip(content, {}))
    with pytest.raises(InputError, match=r"got no known net: a (dict|list) of .*; no arrays"):
        gather("vgg", source=path)
