"""Compiled programs are cached within a limit, for one user; no fault of the cache ends a run."""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from navigan_jax import cache
from navigan_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(name="folder")
def _folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The cache folder, and JAX in the state of a process that has compiled nothing."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("NAVIGAN_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    with warnings.catch_warnings():  # restores `showwarning` too
        yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _compute() -> bytes:
    """Returns the bits of a result whose program is not in memory."""

    @jax.jit
    def kept(x: jax.Array) -> jax.Array:
        return jnp.sin(x) @ jnp.cos(x).T / 3

    jax.clear_caches()
    return np.asarray(kept(np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7))).tobytes()


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("programs-*/*/jit_kept-*-cache"))


def _is_off() -> bool:
    return jax.config.values["jax_compilation_cache_dir"] is None


def test_bits_are_the_same_compiled_and_kept(folder: pathlib.Path) -> None:
    """Without a cache, on writing and on reading a program; other users may not read it."""
    alone = _compute()
    assert not folder.exists()
    cache.keep_programs()
    written = _compute()
    (entry,) = _entries(folder)
    content = entry.read_bytes()
    assert _compute() == written == alone
    assert entry.read_bytes() == content
    assert entry.parent.stat().st_mode & 0o077 == entry.parent.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b"junk" * 99),
        lambda path: path.write_bytes(path.read_bytes()[:-9] + b"123456789"),
    ],
    ids=["empty", "half", "junk", "altered"],
)
def test_damaged_program_is_compiled_and_written_anew(
    folder: pathlib.Path, damage: Callable[[pathlib.Path], None]
) -> None:
    """No warning is raised; it would be an error here."""
    cache.keep_programs()
    result = _compute()
    (entry,) = _entries(folder)
    whole = entry.stat().st_size
    damage(entry)
    assert entry.stat().st_size != whole or b"123456789" in entry.read_bytes()
    assert _compute() == result
    assert _entries(folder) == [entry]
    assert b"123456789" not in entry.read_bytes() and entry.stat().st_size > whole / 2


def test_folder_that_can_not_be_written_ends_no_run(folder: pathlib.Path) -> None:
    """For example a removed folder, or a path that is a file."""
    cache.keep_programs()
    result = _compute()
    (entry,) = _entries(folder)
    shutil.rmtree(entry.parent)
    assert _compute() == result
    entry.parent.write_bytes(b"")
    assert _compute() == result


def test_other_warnings_are_still_shown(folder: pathlib.Path) -> None:
    cache.keep_programs()
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)


def test_users_own_folder_is_left_to_jax(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    cache.keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    assert not folder.exists()


def _make_file(folder: pathlib.Path) -> None:
    folder.write_bytes(b"")


def _make_open(folder: pathlib.Path) -> None:
    (folder / f"programs-{os.getuid()}").mkdir(parents=True)
    (folder / f"programs-{os.getuid()}").chmod(0o777)


def _make_link(folder: pathlib.Path) -> None:
    folder.mkdir()
    (folder / f"programs-{os.getuid()}").symlink_to(folder.parent)


@pytest.mark.parametrize("make", [_make_file, _make_open, _make_link])
def test_folder_that_is_not_ours_alone_is_not_used(
    folder: pathlib.Path, make: Callable[[pathlib.Path], None]
) -> None:
    """Anybody who can write to it could run their own program here."""
    make(folder)
    cache.keep_programs()
    assert _is_off()


def test_nearly_full_disk_is_left_alone(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FREE", 2**80)
    cache.keep_programs()
    assert _is_off()


def test_no_home_turns_it_off_and_is_told_where_a_folder_is_needed(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NAVIGAN_CACHE")
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    cache.keep_programs()
    assert _is_off()
    with pytest.raises(InputError, match=r"NAVIGAN_CACHE: expected a folder .* no home folder"):
        cache.cache_folder()


def test_those_used_longest_ago_are_removed_beyond_the_limit(tmp_path: pathlib.Path) -> None:
    """In all folders together; reading a file counts as use."""
    for number, (name, written, read) in enumerate(
        [("old/a", 100, 100), ("old/b", 200, 900), ("new/c", 300, 300), ("new/d", 400, 400)]
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * (10 + number))
        os.utime(path, (read, written))
    cache.remove_oldest(tmp_path, 11 + 13)
    assert sorted(path.name for path in tmp_path.rglob("?")) == ["b", "d"]
    cache.remove_oldest(tmp_path, 0)
    assert not list(tmp_path.rglob("?"))


def test_processes_share_a_folder_that_others_damage(folder: pathlib.Path) -> None:
    """Two processes get the same bits while their files are truncated and removed all the time."""
    code = (
        "import tests.test_cache as t, navigan_jax.cache as c; c.keep_programs();"
        "print({t._compute() for _ in range(8)})"
    )
    variables = {**os.environ, "NAVIGAN_CACHE": str(folder)}
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)  # of this run of tests, which goes first
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    number = 0
    while any(process.poll() is None for process in processes):
        time.sleep(0.01)
        for entry in folder.glob("programs-*/*/*-cache"):
            number += 1
            try:
                if number % 3:
                    entry.write_bytes(entry.read_bytes()[: number % 977])
                else:
                    entry.unlink()
            except FileNotFoundError:
                pass
    said = [process.communicate(timeout=60) for process in processes]
    assert {out for out, _ in said} == {f"{{{_compute()!r}}}\n"}, said
    assert number > 10
    assert all(not err for _, err in said), said
