"""pix2pixHD files: settings beside the file, old files, sizes, baked copies, refusals."""

import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.bake import bake
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.source_map import read_source_map
from tests.tools.crafting import state_dict_file
from tools.convert_weights import __main__ as command
from tools.convert_weights.foreign import read_foreign

GLOBAL, LOCAL = testing.golden_names("NVIDIA/pix2pixHD")[:2]
pytestmark = pytest.mark.golden


def _state(name: str) -> dict[str, Any]:
    return dict(read_foreign(testing.golden_case(name).path("checkpoint")).content)


def _write(folder: pathlib.Path, state: dict[str, Any]) -> pathlib.Path:
    path = folder / "latest_net_G.pth"
    path.write_bytes(state_dict_file(state))
    return path


def _convert(source: pathlib.Path, *more: str) -> Any:
    out = source.parent / "out.safetensors"
    arguments = ["pix2pixhd", str(source), "--out", str(out), *more]
    assert command.main(arguments) == 0
    return read_generator(out)


@pytest.mark.parametrize(
    ("name", "text", "inputs", "size"),
    [
        (GLOBAL, None, (35, True), (512, 1024)),
        (LOCAL, None, (35, True), (1024, 2048)),
        (GLOBAL, "label_nc: 36\nngf: 64\n", (36, False), (512, 1024)),
        (LOCAL, '{"label_nc": 35}', (35, True), (1024, 2048)),
    ],
)
def test_settings_beside_the_file_tell_the_inputs(
    name: str, text: str | None, inputs: tuple[int, bool], size: tuple[int, int], tmp_path: Any
) -> None:
    """Without settings the last plane is the edges, and the size is the published one."""
    source = _write(tmp_path, _state(name))
    if text is not None:
        (tmp_path / "opt.txt").write_text(f"------\n{text}" if "{" not in text else text)
    generator, _ = _convert(source)
    assert (generator.space.labels, generator.space.has_instances) == inputs
    assert generator.image_shape == (*size, 3)
    other, _ = _convert(source, "--size", "64x96")
    assert other.image_shape == (64, 96, 3)


def test_statistics_of_old_files_are_dropped(tmp_path: pathlib.Path) -> None:
    state = _state(GLOBAL)
    more = {f"model.2.{part}": np.ones(8, np.float32) for part in ("running_mean", "running_var")}
    _, expected = _convert(_write(tmp_path, state))
    _, params = _convert(_write(tmp_path, state | more))
    assert params_lib.digest(params) == params_lib.digest(expected)


def test_baked_copy_has_the_shifted_weights(tmp_path: pathlib.Path) -> None:
    """Of a convolution, a transposed one, and one of an enhancer."""
    source = tmp_path / "latest_net_G.pth"
    shutil.copy(testing.golden_case(LOCAL).path("checkpoint"), source)
    generator, params = _convert(source)
    random = np.random.RandomState(0)
    deltas = {
        layer.path: random.standard_normal(layer.shape).astype(np.float32)
        for layer in generator.find_layers(["model.1", "model.12", "model1_1.4"])
    }
    source_map = read_source_map(tmp_path / "out.safetensors")
    bake(source, tmp_path / "copy.pth", source_map, params, [(Edit(deltas), 0.5)])
    _, baked = _convert(tmp_path / "copy.pth")
    for path, leaf in params_lib.flatten(params).items():
        expected = leaf + np.float32(0.5) * deltas.get(path, np.float32(0))
        testing.assert_close(params_lib.get(baked, path), expected, 1e-6, path)


@pytest.mark.parametrize(
    ("changes", "more", "pattern"),
    [
        ({"model.1.bias": None}, [], "got no model.1.bias"),
        ({"model.99.weight": np.ones(2)}, [], "further arrays model.99.weight"),
        ({"model.10.conv_block.5.weight": np.ones((32, 32, 5, 5))}, [], "other shapes:"),
        ({"model.11.conv_block.1.weight": None}, [], "no model.11.weight|further arrays"),
        ({}, ["--size", "60x90"], r"multiples of 2\^\(halvings \+ enhancers\).*60x90 pixels"),
        ({}, ["--size", "60"], "expected HEIGHTxWIDTH"),
        ({}, ["--config", "none.txt"], "none.txt: expected the settings of pix2pixHD"),
    ],
)
def test_other_files_are_refused(
    changes: dict[str, Any], more: list[str], pattern: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    state = {**_state(GLOBAL), **changes}
    state = {key: np.float32(array) for key, array in state.items() if array is not None}
    out = str(tmp_path / "out.safetensors")
    assert command.main(["pix2pixhd", str(_write(tmp_path, state)), "--out", out, *more]) != 0
    with pytest.raises(InputError, match=pattern):
        raise InputError(capsys.readouterr().err)


def test_photographs_as_inputs_are_refused(tmp_path: pathlib.Path, capsys: Any) -> None:
    """A network with 3 planes and label_nc 0 translates photographs."""
    (tmp_path / "opt.txt").write_text("label_nc: 0\n", encoding="utf-8")
    source = _write(tmp_path, _state(GLOBAL))
    assert command.main(["pix2pixhd", str(source), "--out", str(tmp_path / "a.safetensors")]) != 0
    assert "photographs or features are inputs" in capsys.readouterr().err
