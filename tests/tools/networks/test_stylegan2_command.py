"""The command that converts StyleGAN2 files: its options, its report, and the file it writes."""

import json
import re
from typing import Any

import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.files import make_generator, read_generator
from tests.tools import crafting
from tests.tools.converting import read_stylegan2
from tools.convert_weights import __main__ as command
from tools.convert_weights.readers.torch_file import read_torch

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("case", ["rosinality", "ada_condclamp", "tf_cond"])
def test_command_writes_a_generator(case: str, tmp_path: Any, capsys: Any) -> None:
    """The file holds what was converted and says where it is from; the report describes it."""
    source = testing.golden_case(f"stylegan2_{case}").path("checkpoint")
    out = tmp_path / "generator.safetensors"
    assert command.main(["stylegan2", str(source), "--out", str(out)]) == 0
    generator, params = read_generator(out)
    config, want, origin = read_stylegan2(source)
    assert generator == make_generator("stylegan2", config)
    assert params_lib.digest(params) == params_lib.digest(want)
    assert origin["file"] == source.name
    text = capsys.readouterr().out
    assert all(
        part in text for part in ("stylegan2", origin["sha256"], "synthesis/b8/conv0/kernel")
    )


@pytest.mark.parametrize("form", ["\n".join, json.dumps, lambda n: json.dumps({"label_names": n})])
def test_classes_may_have_names(form: Any, tmp_path: Any, capsys: Any) -> None:
    """Names come from a text or JSON file, one for each class."""
    source = testing.golden_case("stylegan2_ada_cond").path("checkpoint")
    count = read_stylegan2(source)[0]["label_dim"]
    names, out = tmp_path / "names", tmp_path / "generator.safetensors"
    arguments = ["stylegan2", str(source), "--label-names", str(names), "--out", str(out)]
    classes = [f"class {index}" for index in range(count)]
    names.write_text(form(classes), encoding="utf-8")
    assert command.main(arguments) == 0
    assert read_generator(out, {"label": classes[-1]})[0].space.label == count - 1
    assert re.search(r"synthesis/b8/conv1/kernel +convs\.1 +1 +8 ", capsys.readouterr().out)
    names.write_text(form(classes[1:]), encoding="utf-8")
    assert command.main(arguments) == 2
    assert f"expected {count} different names, or none" in capsys.readouterr().err
    names.write_text('{"label_names": 3}')
    assert command.main(arguments) == 2
    assert f"expected names in {names}; got none" in capsys.readouterr().err


def test_options_reach_the_generator(tmp_path: Any, capsys: Any) -> None:
    """Each option shows in the file; the report names the network and the origin of w_avg."""
    state = read_torch(testing.golden_case("stylegan2_rosinality").path("checkpoint"))["g_ema"]
    source, out = tmp_path / "state.pt", tmp_path / "generator.safetensors"
    source.write_bytes(crafting.state_dict_file(state))
    options = ["--mapping-rate", "0.02", "--draws", "16"]
    assert command.main(["stylegan2", str(source), *options, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "not in the file: mean of 16 draws, seed 0" in text
    assert re.search("source assumed +mapping rate 0.02\n", text)
    assert command.main(["inspect", str(source)]) == 0
    assert re.search("assumed +mapping rate 0.01\n", capsys.readouterr().out)
    count = len(params_lib.flatten(read_generator(out)[1])) - 1  # all but the average
    assert f"{count} arrays of state; an edit can be written back" in text
    assert '"mapping_rate": 0.02' in text and '"map"' not in text
    for option, value, message in (
        ("--draws", "0", "expected a whole number from 1 to"),
        ("--clamp", "-1", "expected a number above 0; got '-1'"),
        ("--mapping-rate", "fast", "expected a number above 0; got 'fast'"),
        ("--network", "G", "expected a file with the network 'G'; got one with state"),
        ("--clamp", "256", "expected --clamp only for a state dict of NVIDIA's PyTorch programs"),
    ):
        assert command.main(["stylegan2", str(source), option, value, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    pickle = str(testing.golden_case("stylegan2_ada_cond").path("checkpoint"))
    for option, value, allowed in (
        ("--clamp", "256", "a state dict of NVIDIA's PyTorch programs"),
        ("--mapping-rate", "0.02", "a state dict, which does not store this setting"),
        ("--mapping-rate", "0.01", "a state dict, which does not store this setting"),
        ("--draws", "4096", "a file without an average w; got a file that stores the average w"),
        ("--draws", "16", "a file without an average w; got a file that stores the average w"),
    ):
        assert command.main(["stylegan2", pickle, option, value, "--out", str(out)]) == 2
        assert f"expected {option} only for {allowed}" in capsys.readouterr().err
    arguments = ["stylegan2", "--all-known", "--clamp", "256", "--out", str(tmp_path / "all")]
    assert command.main(arguments) == 2
    assert "expected no other option than --out" in capsys.readouterr().err
