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
from navigan_jax.generators.source_map import read_source_map
from tests.tools.converting import convert_file
from tests.tools.crafting import state_dict_file
from tools.convert_weights import __main__ as command
from tools.convert_weights.foreign import read_foreign

NAMES = testing.golden_names("NVIDIA/pix2pixHD")
pytestmark = pytest.mark.golden


def _with_enhancer(name: str) -> bool:
    return testing.golden_case(name).info["architecture"]["n_local_enhancers"] > 0


GLOBAL = next(name for name in NAMES if not _with_enhancer(name))
LOCAL = next(name for name in NAMES if _with_enhancer(name))
OPTIONS = testing.golden_case(GLOBAL).info["architecture"]
PLANES = OPTIONS["input_nc"]
BLOCK = f"model.{4 + 3 * OPTIONS['n_downsample_global']}"  # the first residual block


def _state(name: str) -> dict[str, Any]:
    return dict(read_foreign(testing.golden_case(name).path("checkpoint")).content)


def _write(folder: pathlib.Path, state: dict[str, Any]) -> pathlib.Path:
    path = folder / "latest_net_G.pth"
    path.write_bytes(state_dict_file(state))
    return path


@pytest.mark.parametrize(
    ("name", "text", "inputs", "size"),
    [
        (GLOBAL, None, (PLANES - 1, True), (512, 1024)),
        (LOCAL, None, (PLANES - 1, True), (1024, 2048)),
        (GLOBAL, f"label_nc: {PLANES}\nngf: 64\n", (PLANES, False), (512, 1024)),
        (LOCAL, f'{{"label_nc": {PLANES - 1}}}', (PLANES - 1, True), (1024, 2048)),
    ],
)
def test_settings_beside_the_file_tell_the_inputs(
    name: str, text: str | None, inputs: tuple[int, bool], size: tuple[int, int], tmp_path: Any
) -> None:
    """Without settings the last plane is the edges, and the size is the published one."""
    source = _write(tmp_path, _state(name))
    if text is not None:
        (tmp_path / "opt.txt").write_text(f"------\n{text}" if "{" not in text else text)
    generator, _ = convert_file("pix2pixhd", source)
    assert (generator.space.labels, generator.space.has_instances) == inputs
    assert generator.image_shape == (*size, 3)
    other, _ = convert_file("pix2pixhd", source, "--size", "128x192")
    assert other.image_shape == (128, 192, 3)


def test_statistics_of_old_files_are_dropped(tmp_path: pathlib.Path) -> None:
    state = _state(GLOBAL)
    more = {f"model.2.{part}": np.ones(3, np.float32) for part in ("running_mean", "running_var")}
    _, expected = convert_file("pix2pixhd", _write(tmp_path, state))
    _, params = convert_file("pix2pixhd", _write(tmp_path, state | more))
    assert params_lib.digest(params) == params_lib.digest(expected)


def test_baked_copy_has_the_shifted_weights(tmp_path: pathlib.Path) -> None:
    """Of a convolution, a transposed one, and one of an enhancer."""
    source = tmp_path / "latest_net_G.pth"
    shutil.copy(testing.golden_case(LOCAL).path("checkpoint"), source)
    generator, params = convert_file("pix2pixhd", source)
    random = np.random.RandomState(0)
    deltas = {
        layer.path: random.standard_normal(layer.shape).astype(np.float32)
        for layer in generator.find_layers(["global_conv", "global_up0", "enhancer1_down"])
    }
    source_map = read_source_map(tmp_path / "converted.safetensors")
    bake(source, tmp_path / "copy.pth", source_map, params, [(Edit(deltas), 0.5)])
    _, baked = convert_file("pix2pixhd", tmp_path / "copy.pth")
    for path, leaf in params_lib.flatten(params).items():
        expected = leaf + np.float32(0.5) * deltas.get(path, np.float32(0))
        testing.assert_close(params_lib.get(baked, path), expected, 1e-6, path)


@pytest.mark.parametrize(
    ("changes", "more", "pattern"),
    [
        ({"model.1.bias": None}, [], "got no model.1.bias"),
        ({"model.99.weight": np.ones(2)}, [], "further arrays model.99.weight"),
        ({f"{BLOCK}.conv_block.5.weight": np.ones((32, 32, 5, 5))}, [], "other shapes:"),
        ({f"{BLOCK}.conv_block.1.weight": None}, [], "no residual block"),
        ({}, ["--size", "30x90"], r"multiples of 2\^\(halvings \+ enhancers\).*30x90 pixels"),
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
