"""Flags mean the same in any order and form."""

import itertools

import pytest
from ml_collections import config_dict

from navigan_jax import command_line
from navigan_jax.config import Config
from navigan_jax.errors import InputError


@pytest.fixture
def config() -> Config:
    return config_dict.ConfigDict(
        {"seed": 0, "show": True, "layers": ("a",), "net": {"path": config_dict.placeholder(str)}}
    )


def test_order_does_not_matter(config: Config) -> None:
    """All 24 orders of four flags, two of them with the value as a separate word."""
    flags = (["--config", "a b.py"], ["--config.seed=1"], ["--workdir", "-w"], ["--noconfig.show"])
    for order in itertools.permutations(flags):
        words = [word for flag in order for word in flag]
        path = command_line.find_config(words)
        assert path == "a b.py"
        first, *others = command_line.in_one_form(words, path, config)
        assert first == "--config=a b.py"
        assert sorted(others) == ["--config.seed=1", "--config.show=false", "--workdir=-w"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--config.seed=1", "--config.seed=2"], ["--config.seed=2"]),
        (["--config.layers=('b',)", "--config.layers", "('c',)"], ["--config.layers=('c',)"]),
        (["--noconfig.show", "--config.show"], ["--config.show=true"]),
        (["--config.show", "False"], ["--config.show=False"]),
        (["-config.show", "-config.seed", "-1"], ["--config.show=true", "--config.seed=-1"]),
        (["--config.net.path=a,b=c d\n~é"], ["--config.net.path=a,b=c d\n~é"]),
        (["--config.net.path", ""], ["--config.net.path="]),
        (["--workdir=a", "--workdir=b"], ["--workdir=b"]),
        (["--v=1", "word"], ["--v=1", "word"]),
        (
            ["--config.seed=1", "--", "--config.seed=2"],
            ["--config.seed=1", "--", "--config.seed=2"],
        ),
    ],
)
def test_each_form_becomes_one_word_and_the_last_counts(
    config: Config, words: list[str], meant: list[str]
) -> None:
    assert command_line.in_one_form(words, "c.py", config) == ["--config=c.py", *meant]


def test_the_last_config_counts() -> None:
    """The last of several flags counts; words after -- are no flags, and an override is no file."""
    find = command_line.find_config
    assert find(["--config=a", "-config", "b", "--config.seed=1"]) == "b"
    assert find(["--config=a", "--", "--config=b"]) == "a"
    assert find(["--config.seed=1"]) == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--config.sed=1"], r"config\.sed: expected a known key; .* did you mean seed\?"),
        (["--noconfig.shaw"], r"config\.shaw: .* did you mean show\?"),
        (["--noconfig.seed"], r"config\.seed: expected --config\.seed=VALUE; got '--noconfig\.see"),
        (["--noconfig.show=1"], r"got '--noconfig\.show=1'; --noconfig\.KEY .* takes no value"),
        (
            ["--config.seed"],
            r"--config\.seed: expected a value; got nothing; write --config\.",
        ),
        (["--config.seed", "--workdir=a"], r"--config\.seed: expected a value; got another flag"),
        (["--workdir", "--"], "--workdir: expected a value; got another flag"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: Config, words: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        command_line.in_one_form(words, "c.py", config)
