"""The packages that setup.cfg asks for, the code imports and the lock files pin are the same."""

import ast
import configparser
import importlib.metadata
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def normal(name: str) -> str:
    """Returns the name of a distribution as lock files spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(text: str) -> set[str]:
    """Returns the distributions of a list of requirements in setup.cfg."""
    return {normal(re.split(r"[\[<>=!~;]", line)[0]) for line in text.split()}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def pins(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns name: (version, hashes) of each package in a lock file."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8")):
        if entry.startswith("#"):
            continue
        match = re.match(r"([a-z0-9-]+)==(\S+) ", entry)
        assert match, f"{lock}: no pin in {entry.partition(chr(10))[0]!r}"
        found[match[1]] = (
            match[2],
            frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)),
        )
    return found


def imported(top: str) -> set[str]:
    """Returns the distributions that the files below a folder import."""
    names = set()
    for path in (ROOT / top).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    ours = {
        "benchmarks",
        "configs",
        "docs",
        "navigan_jax",
        "tests",
        "tools",
    } | sys.stdlib_module_names
    distributions = importlib.metadata.packages_distributions()
    return {normal(distributions.get(name, [name])[0]) for name in names - ours}


def test_code_imports_what_setup_cfg_asks_for_and_all_of_it() -> None:
    asked = declared(setup_cfg()["options"]["install_requires"])
    used = imported("navigan_jax") | imported("tools") | imported("configs")
    assert used == asked, f"only imported: {used - asked}; only in setup.cfg: {asked - used}"


def test_tests_import_what_setup_cfg_asks_for() -> None:
    parser = setup_cfg()
    asked = declared(parser["options"]["install_requires"])
    asked |= declared(parser["options.extras_require"]["dev"])
    assert imported("tests") <= asked


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_by_hash_and_names_no_place(lock: str) -> None:
    for name, (_, hashes) in pins(lock).items():
        assert hashes, f"{lock}: {name} has no hash"
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)
    assert "torch" not in pins(lock)


def test_locks_hold_what_setup_cfg_asks_for() -> None:
    parser = setup_cfg()
    run = declared(parser["options"]["install_requires"])
    develop = run | declared(parser["options.extras_require"]["dev"])
    assert run <= pins(LOCKS[0]).keys()
    assert develop <= pins(LOCKS[1]).keys()


def test_dev_lock_holds_the_other_lock() -> None:
    """The demo runs the versions that pass the tests, and one .venv serves both."""
    assert pins(LOCKS[0]).items() <= pins(LOCKS[1]).items()
