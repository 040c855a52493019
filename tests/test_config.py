import pathlib
import re
from typing import Any

import pytest
from ml_collections import config_dict

from navigan_jax import config as config_lib
from navigan_jax.errors import InputError

KEYS = {
    "task": str,
    "seed": int,
    "scale": float,
    "show": bool,
    "generator.weights": str,
    "generator.layers": tuple[str, ...],
    "generator.count": int | None,
}


def make_config(**changes: Any) -> config_dict.ConfigDict:
    """Returns a config that fits KEYS; changes are named by their last part."""
    config = config_dict.ConfigDict(
        {
            "task": "probe",
            "seed": 3,
            "scale": 0.5,
            "show": False,
            "generator": {
                "weights": config_dict.placeholder(str),
                "layers": ("conv0", "conv1"),
                "count": config_dict.placeholder(int),
            },
        }
    )
    config.generator.weights = "faces.safetensors"
    with config.ignore_type():
        for name, value in changes.items():
            holder = config.generator if name in config.generator else config
            holder[name] = value
    return config


def write(tmp_path: pathlib.Path, text: str) -> str:
    path = tmp_path / "chosen.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- load


def test_load_returns_what_get_config_returns(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path,
        "import ml_collections\n"
        "def get_config(word='none'): return ml_collections.ConfigDict({'word': word})\n",
    )
    assert config_lib.load(path).word == "none"
    assert config_lib.load(f"{path}:small:er").word == "small:er"


def test_load_suggests_files_like_the_one_missing(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "")
    with pytest.raises(InputError, match=r"holds chosen\.py; did you mean chosen\.py\?"):
        config_lib.load(str(tmp_path / "choosen.py"))
    with pytest.raises(InputError, match=r"which is no file; .* holds none; set --config"):
        config_lib.load(str(tmp_path / "no" / "such.py"))
    with pytest.raises(InputError, match="which is a folder"):
        config_lib.load(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "word", "complaint"),
    [
        ("x = 1\ndef get_config(:\n", "", r"chosen\.py:2: expected Python; got 'def get_config\("),
        ("x = 1\n", "", r"expected a function get_config\(\); got none"),
        ("get_config = 1\n", "", r"expected a function get_config\(\); got none"),
        (
            "x = y\n",
            "",
            r"chosen\.py:1: expected a config; got NameError: name 'y' ",
        ),
        ("\n\ndef get_config(): return 1 / 0\n", "", r"chosen\.py:3: .* got ZeroDivisionError: "),
        ("def get_config(): return 1\n", "", "expected get_config.* a ConfigDict; got int"),
        ("def get_config(): pass\n", ":small", "leave the part after the colon out"),
        ("def get_config(word): pass\n", "", r"expected .*chosen\.py:WORD for .*\(word\)"),
        (
            "def get_config(word): raise ValueError('word: expected small; got ' + word)\n",
            ":smal",
            r"chosen\.py:smal: word: expected small; got smal",
        ),
    ],
)
def test_load_tells_what_is_wrong_with_a_file(
    tmp_path: pathlib.Path, text: str, word: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        config_lib.load(write(tmp_path, text) + word)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("[1, 2]", r"config\.a\.b: expected a finite number, .*; got \[1, 2\]"),
        ("None", r"config\.a\.b: expected a finite number, .* or a placeholder .*; got None"),
        ("float('inf')", r"config\.a\.b: expected a finite number, .*; got inf"),
        ("(1, object)", r"config\.a\.b: expected a finite number, .*; got \(1, <class 'object'>\)"),
        ("print", r"config\.a\.b: expected a finite number, .*; got <built-in function print>"),
        (
            "ml_collections.config_dict.required_placeholder(int)",
            r"config\.a\.b: expected placeholder\(int\); got required_placeholder",
        ),
    ],
)
def test_load_refuses_values_that_flags_or_text_cannot_hold(
    tmp_path: pathlib.Path, value: str, complaint: str
) -> None:
    text = (
        "import ml_collections\n"
        f"def get_config(): return ml_collections.ConfigDict({{'a': {{'b': {value}}}}})\n"
    )
    with pytest.raises(InputError, match=complaint):
        config_lib.load(write(tmp_path, text))


# --- names on the command line


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("sed", r"config\.sed: .* did you mean seed\? allowed: generator\.count, "),
        ("generator.layer", r"did you mean generator\.layers\?"),
        ("weights", r"did you mean generator\.weights\?"),
        ("generator", r"config\.generator: expected a known key"),
        ("generator.layers[0]", r"did you mean generator\.layers\?"),
        ("", r"config\.: expected a known key"),
        ("xyzzy", "allowed: .*task; correct or remove it"),
    ],
)
def test_require_key_names_near_keys_at_any_depth(path: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        config_lib.require_key(make_config(), path)
    for known in config_lib.list_keys(make_config()):
        config_lib.require_key(make_config(), known)


def test_misfit_names_key_type_value_and_an_example() -> None:
    assert str(config_lib.misfit(make_config(), "generator.count", "many")) == (
        "config.generator.count: expected int; got 'many'; "
        "set it in the config file or with --config.generator.count=1"
    )


# --- validate


@pytest.mark.parametrize(
    "changes",
    [{}, {"count": 2}, {"scale": 2}, {"layers": ()}, {"show": True}],
)
def test_validate_accepts_values_of_the_right_kind(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    config_lib.validate(config, KEYS)
    config_lib.validate(config_lib.freeze(config), KEYS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": None}, r"generator\.weights: expected str; got nothing; .*weights=TEXT"),
        ({"seed": 1.0}, r"config\.seed: expected int; got 1\.0; .* --config\.seed=1"),
        ({"seed": True}, r"config\.seed: expected int; got True"),
        ({"show": 0}, r"config\.show: expected bool; got 0; .*--config\.show=true"),
        ({"scale": "1"}, r"config\.scale: expected float; got '1'; .*--config\.scale=0\.1"),
        ({"count": "2"}, r"count: expected int or None; got '2'; .*count=1"),
        ({"layers": ("conv0", 1)}, r"expected tuple of str; got \('conv0', 1\); .*'\(1, 2\)'"),
        ({"layers": "conv0"}, r"layers: expected tuple of str; got 'conv0'"),
        ({"sead": 1}, r"config\.sead: expected a known key; .* did you mean seed\?"),
        ({"generator": "faces"}, r"config\.generator: expected a known key; got 'generator'"),
        ({"scale": float("nan")}, r"config\.scale: expected a finite number.*; got nan"),
    ],
)
def test_validate_names_the_first_key_at_fault(changes: dict[str, Any], complaint: str) -> None:
    config = make_config(**changes)
    with pytest.raises(InputError, match=complaint):
        config_lib.validate(config, KEYS)
    with pytest.raises(InputError, match=complaint):
        config_lib.validate(config_lib.freeze(config), KEYS)


def test_validate_tells_a_key_that_is_absent_from_one_without_a_value() -> None:
    config = make_config()
    del config.generator.weights
    complaint = r"config\.generator\.weights: .* a config without this key; .* to the config file"
    with pytest.raises(InputError, match=complaint):
        config_lib.validate(config, KEYS)


def test_validate_may_leave_other_keys_alone() -> None:
    config_lib.validate(make_config(), {"task": str}, others=True)
    config_lib.validate(make_config(scale=float("nan")), {"task": str}, others=True)
    with pytest.raises(InputError, match=r"config\.seed: expected str"):
        config_lib.validate(make_config(), {"seed": str}, others=True)


# --- freezing, text, differences


def test_freeze_refuses_changes_and_leaves_the_original() -> None:
    config = make_config()
    frozen = config_lib.freeze(config)
    config.seed = 4
    assert frozen.seed == 3
    with pytest.raises(AttributeError):
        frozen.seed = 5


def test_freeze_empties_placeholders_that_were_set_to_the_text_none() -> None:
    """And leaves what is no placeholder, as well as the original."""
    config = make_config(weights="None", task="None")
    frozen = config_lib.freeze(config)
    assert (frozen.generator.weights, frozen.task) == (None, "None")
    assert config.generator.weights == "None"
    config_lib.validate(frozen, {"generator.weights": str | None}, others=True)


def test_freeze_writes_paths_in_the_home_folder_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """One path or several with commas, for any key; ~ elsewhere, or of an unknown user, is kept."""
    monkeypatch.setenv("HOME", "/home/me")
    for text, meant in {
        "~/a.pt": "/home/me/a.pt",
        "~/a, b~/c,~/d e": "/home/me/a, b~/c,/home/me/d e",
        "~nobody-here/a": "~nobody-here/a",
        "a/~/b": "a/~/b",
        "~5": "~5",
    }.items():
        config = make_config(weights=text, task=text)
        frozen = config_lib.freeze(config)
        assert (frozen.generator.weights, frozen.task) == (meant, meant)
        assert config.task == text
    assert config_lib.freeze(config_lib.freeze(make_config(weights="~/a"))) == config_lib.freeze(
        make_config(weights="/home/me/a")
    )


def test_path_with_commas_is_still_a_path(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest that is there is meant; what is not there is split at each comma."""
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.pt", "a", " c=d", "é\n~,e"):
        (tmp_path / name).touch()
    split = config_lib.split_paths
    assert split("a,b.pt") == ["a,b.pt"]
    assert split("a, a,b.pt,x , c=d,a") == ["a", "a,b.pt", "x", " c=d", "a"]
    assert split("é\n~,e,y,z") == ["é\n~,e", "y", "z"]
    assert split("") == [""]


def test_home_is_not_put_into_a_path_that_is_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although a ~ after a comma begins another path elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,~").mkdir()
    (tmp_path / "a,~" / "b").touch()
    assert config_lib.expand_home("~/a,~/b") == f"{tmp_path}/a,~/b"
    assert config_lib.expand_home("~/c,~/b") == f"{tmp_path}/c,{tmp_path}/b"


def test_text_round_trip_is_the_identity() -> None:
    frozen = config_lib.freeze(make_config())
    text = config_lib.to_text(frozen)
    assert config_lib.from_text(text) == frozen
    assert config_lib.to_text(config_lib.from_text(text)) == text
    assert config_lib.from_text(text).generator.layers == ("conv0", "conv1")


def test_text_does_not_depend_on_the_order_of_keys() -> None:
    one = config_dict.ConfigDict({"a": 1, "b": {"c": 2.0, "d": "ü"}})
    other = config_dict.ConfigDict({"b": {"d": "ü", "c": 2.0}, "a": 1})
    assert config_lib.to_text(one) == config_lib.to_text(other)
    assert config_lib.to_text(one).splitlines()[1] == '  "a": 1,'


@pytest.mark.parametrize("text", ["", '{"seed": 1', "[1, 2]"])
def test_from_text_refuses_what_no_run_wrote(text: str) -> None:
    complaint = f"saved config: .*; got {re.escape(repr(text))}.*another --workdir"
    with pytest.raises(InputError, match=complaint):
        config_lib.from_text(text)


def test_differences_are_lines_by_key() -> None:
    old, new = make_config(), make_config(seed=4, count=2, extra="x", layers=("conv0",))
    assert config_lib.differences(old, new) == [
        "extra: (no such key) -> 'x'",
        "generator.count: None -> 2",
        "generator.layers: ('conv0', 'conv1') -> ('conv0',)",
        "seed: 3 -> 4",
    ]
    assert config_lib.differences(new, new) == []
