"""Files are whole or absent, come back bit for bit, and say what is wrong with them."""

import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from navigan_jax import checkpoints
from navigan_jax.errors import InputError

METADATA = {"format": "navigan_jax.test", "format_version": "1", "note": "ξ ∈ ℝⁿ\n"}


def arrays():
    """One array of each type and of unusual shapes."""
    random = np.random.RandomState(0)
    return {
        "float64": random.standard_normal((3, 5)),
        "float32": random.standard_normal((2, 3, 4)).astype(np.float32).transpose(2, 0, 1),
        "float16": np.array([np.nan, np.inf, -0.0, 1e-7], np.float16),
        "bfloat16": random.standard_normal(7).astype(ml_dtypes.bfloat16),
        "int64": np.array([-(2**62), 3]),
        "uint8": np.arange(5, dtype=np.uint8),
        "bool": np.array([True, False]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "branch/of jax": jnp.arange(6.0).reshape(2, 3),
    }


def assert_same_bits(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        array = np.asarray(array)
        assert isinstance(got[name], np.ndarray)
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        assert got[name].tobytes() == array.tobytes(), name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_arrays_and_metadata_come_back(tmp_path):
    """Bits, types, shapes and the texts; missing folders are made."""
    path = tmp_path / "new" / "folder" / "file.safetensors"
    checkpoints.write_arrays(path, arrays(), METADATA)
    got, metadata = checkpoints.read_arrays(path)
    assert_same_bits(got, arrays())
    assert metadata == METADATA
    assert names(path.parent) == ["file.safetensors"]


def test_same_arrays_and_metadata_are_the_same_bytes(tmp_path):
    """The order of arrays and metadata has no effect."""
    metadata = {f"key {number}": 'ü\u2028\\ \x7f"' * number for number in range(9)}
    arrays = {name: np.arange(3.0) for name in "cab"}
    written = set()
    for order in (1, -1):
        path = tmp_path / f"{order}.safetensors"
        checkpoints.write_arrays(path, arrays, dict(list(metadata.items())[::order]))
        assert checkpoints.read_arrays(path)[1] == metadata
        written.add(path.read_bytes())
    assert len(written) == 1
    checkpoints.write_arrays(path, arrays, {})
    assert checkpoints.read_arrays(path)[1] == {}


def test_text_comes_back(tmp_path):
    """Texts are UTF-8."""
    checkpoints.write_text(tmp_path / "a.txt", METADATA["note"])
    assert (tmp_path / "a.txt").read_bytes() == METADATA["note"].encode()


def test_error_while_writing_leaves_the_old_file(tmp_path):
    """Also an interruption by the user; no temporary or new file is left."""
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    checkpoints.write_text(old, "old")
    for error in (RuntimeError, KeyboardInterrupt):
        for path in (old, new):
            with pytest.raises(error), checkpoints.atomic_output(path) as temporary:
                temporary.write_text("half")
                raise error
    assert names(tmp_path) == ["old.txt"]
    assert old.read_text() == "old"


def test_killed_writer_leaves_the_old_file(tmp_path):
    """What it began stays under a name that says so, and the next writer is not in its way."""
    path = tmp_path / "file.txt"
    checkpoints.write_text(path, "old")
    program = (
        "import os, signal, sys\n"
        "from navigan_jax import checkpoints\n"
        "with checkpoints.atomic_output(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = pathlib.Path(__file__).resolve().parents[1]
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = names(tmp_path)
    assert len(left) == 2 and left[0].startswith(".unfinished-") and left[0].endswith(".txt")
    checkpoints.write_text(path, "new")
    assert path.read_text() == "new"
    with checkpoints.locked(tmp_path):
        assert names(tmp_path) == ["file.txt"]


def test_what_others_are_writing_is_left_alone(tmp_path):
    """Files of a living process of this host, and for one hour files of another host, are kept."""
    with checkpoints.atomic_output(tmp_path / "file.txt") as ours:
        other = ours.with_name(f".unfinished-elsewhere-{2**30}-0.txt")
        other.write_text("half")
        with checkpoints.locked(tmp_path):
            assert names(tmp_path) == sorted([ours.name, other.name])
        os.utime(other, (0, 0))
        with checkpoints.locked(tmp_path):
            assert names(tmp_path) == [ours.name]


def test_name_changes_only_after_the_bytes_are_on_the_disk(tmp_path, monkeypatch):
    """The file is complete when it is synchronised, and that comes before the renaming."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(number):
        calls.append(("fsync", os.fstat(number).st_size))
        fsync(number)

    def watched_replace(source, target):
        calls.append(("replace", pathlib.Path(source).parent == pathlib.Path(target).parent))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    checkpoints.write_text(tmp_path / "file.txt", "12345")
    assert calls == [("fsync", 5), ("replace", True)]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_of_any_new_file(tmp_path, mask, mode):
    """Files of arrays and texts get the permissions of the user's mask."""
    before = os.umask(mask)
    try:
        checkpoints.write_text(tmp_path / "a.txt", "")
        checkpoints.write_arrays(tmp_path / "a.safetensors", arrays(), {})
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, r"No space left on device\); the disk is full: free some space"),
        (errno.EDQUOT, r"\); the disk quota is used up"),
        (errno.EACCES, r"Permission denied\); the folder may not be written to"),
        (errno.EROFS, r"Read-only file system\); the file system is read-only"),
        (errno.EIO, r"\); check the path and the disk"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_refusal_of_the_system_is_told_with_advice(tmp_path, monkeypatch, call, code, advice):
    """Path, reason and what to do; the old file stays and nothing temporary."""
    path = tmp_path / "file.safetensors"
    checkpoints.write_arrays(path, arrays(), METADATA)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(InputError, match=r"file\.safetensors: could not be written \(.*" + advice):
        checkpoints.write_arrays(path, {"x": np.zeros(1)}, {})
    assert names(tmp_path) == ["file.safetensors"]
    assert_same_bits(checkpoints.read_arrays(path)[0], arrays())


def test_refusal_while_the_library_writes_is_told(tmp_path):
    """Here by a limit on the size of files, which acts like a full disk."""
    path = tmp_path / "file.safetensors"
    checkpoints.write_arrays(path, arrays(), METADATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(InputError, match=r"file\.safetensors: .* \(File too large\); check"):
            checkpoints.write_arrays(path, {"x": np.zeros(1 << 18)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["file.safetensors"]
    assert_same_bits(checkpoints.read_arrays(path)[0], arrays())


def test_fault_of_the_program_is_no_refusal_of_the_system(tmp_path, monkeypatch):
    """What the library says without a number of the system keeps its traceback."""

    def fail(*_, **__):
        raise safetensors.SafetensorError("invalid dtype")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(safetensors.SafetensorError, match="invalid dtype"):
        checkpoints.write_arrays(tmp_path / "file.safetensors", arrays(), {})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("file/below", "a part of the path is a file"),
        ("file/far/below", "a part of the path is a file"),
        ("folder", "there is a folder or a device of that name"),
        ("x" * 300, "the name is too long"),
    ],
)
def test_impossible_places_are_told(tmp_path, path, advice):
    """A file on the way, a folder in place of the file, a name that no system takes."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"{path}: could not be written .*; {advice}: choose"):
        checkpoints.write_text(tmp_path / path, "")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_device_is_not_replaced(tmp_path):
    """Renaming a file to the name of a pipe or a device would destroy it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a device of that name: choose another name"):
        checkpoints.write_text(tmp_path / "pipe", "")
    assert names(tmp_path) == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_make_folder_makes_parents_and_checks(tmp_path):
    """It returns a new or existing folder, and refuses a file."""
    folder = checkpoints.make_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert checkpoints.make_folder(folder) == folder
    assert names(folder) == []
    (folder / "file").write_text("")
    for path in ("file", "file/below"):
        with pytest.raises(InputError, match=r"could not be written .*; a part of the path is a"):
            checkpoints.make_folder(folder / path)


@pytest.mark.parametrize("tenth", range(10))
def test_truncated_file_is_refused(tmp_path, tenth):
    """Wherever it ends, down to nothing and up to one byte less than all."""
    path = tmp_path / "file.safetensors"
    checkpoints.write_arrays(path, arrays(), METADATA)
    data = path.read_bytes()
    path.write_bytes(data[: (len(data) - 1) * (tenth + 1) // 10 if tenth else 0])
    with pytest.raises(InputError, match=r"file\.safetensors: expected a whole safetensors file"):
        checkpoints.read_arrays(path)


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + bytes(99), b"\x80\x02}q\x00." * 9, b"\x93NUMPY\x01\x00" + bytes(99), b"text"],
    ids=["zip", "pickle", "npy", "text"],
)
def test_other_format_is_refused_with_the_command_that_converts_it(tmp_path, data):
    """PyTorch's and NumPy's files among them."""
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        checkpoints.read_arrays(path)
    assert f"python -m tools.convert_weights KIND {path} --out FILE" in str(caught.value)


def test_damaged_header_is_refused_or_harmless(tmp_path):
    """Any wrong byte gives an InputError or no exception."""
    path = tmp_path / "file.safetensors"
    checkpoints.write_arrays(path, {"a": np.zeros(3), "b": np.ones((2, 2))}, METADATA)
    data, random = path.read_bytes(), np.random.RandomState(0)
    length = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for position in range(length):
        wrong = bytes([random.randint(256)])
        path.write_bytes(data[:position] + wrong + data[position + 1 :])
        try:
            checkpoints.read_arrays(path)
        except InputError:
            refused += 1
    assert refused > length / 2


def test_missing_file_is_told(tmp_path):
    """The message says that nothing, or a folder, is at the path."""
    with pytest.raises(InputError, match=r"absent: expected a file; got nothing; check the path"):
        checkpoints.read_arrays(tmp_path / "absent")
    with pytest.raises(InputError, match=r"expected a file; got a folder; check the path"):
        checkpoints.read_arrays(tmp_path)


def test_another_kind_or_version_is_refused():
    """The message names both, and how to look into the file or what to do."""
    checkpoints.require_format("f", METADATA, "test")
    with pytest.raises(
        InputError, match=r"^f: expected .* navigan_jax\.generator; got navigan_jax"
    ):
        checkpoints.require_format("f", METADATA, "generator")
    with pytest.raises(InputError, match=r"got no format; .*tools\.convert_weights inspect f"):
        checkpoints.require_format("f", {}, "test")
    with pytest.raises(InputError, match=r"^f: expected format version 1; got 2; .*update"):
        checkpoints.require_format("f", METADATA | {"format_version": "2"}, "test")


@pytest.mark.parametrize("text", [None, "{", "[1]", "null", "1"])
def test_metadata_that_are_no_json_of_the_kind_are_refused(text):
    """Missing, damaged, or a list where a table should be."""
    metadata = {} if text is None else {"config": text}
    with pytest.raises(
        InputError, match=r"^f: expected JSON under 'config' .*, a dict; got .*anew"
    ):
        checkpoints.read_json("f", metadata, "config")
    value = {"sizes": [1, 2]}
    assert checkpoints.read_json("f", {"config": json.dumps(value)}, "config") == value
    assert checkpoints.read_json("f", {"layers": "[1]"}, "layers", list) == [1]


def state():
    flat = arrays()
    return {
        "solver": {"basis": {"0": flat["float64"], "1": flat["empty"]}, **flat},
        "n": flat["int64"],
    }


def test_state_comes_back(tmp_path):
    """Bits, types and shapes of every leaf, at its place; nothing where there is nothing."""
    path = tmp_path / "state"
    assert checkpoints.read_state(path) is None
    tree = state()
    del tree["solver"]["branch/of jax"]
    checkpoints.write_state(path, tree)
    got = checkpoints.read_state(path)
    assert got.keys() == tree.keys()
    assert_same_bits(got["solver"].pop("basis"), tree["solver"].pop("basis"))
    assert_same_bits(got.pop("solver"), tree.pop("solver"))
    assert_same_bits(got, tree)


def test_state_is_replaced_whole_and_removed(tmp_path, monkeypatch):
    """Nothing of the last one stays; one that cannot be written leaves the last one."""
    path = tmp_path / "state"
    checkpoints.write_state(path, {"a": {"b": np.zeros(3)}})
    checkpoints.write_state(path, {"c": np.ones(2)})
    monkeypatch.setattr(safetensors.numpy, "save_file", _full_disk)
    with pytest.raises(InputError, match=r"state: could not be written .*; the disk is full"):
        checkpoints.write_state(path, {"d": np.ones(2)})
    assert_same_bits(checkpoints.read_state(path), {"c": np.ones(2)})
    assert names(tmp_path) == ["state"]
    for _ in range(2):
        checkpoints.remove_state(path)
        assert checkpoints.read_state(path) is None


def _full_disk(*_, **__):
    raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")


def test_damaged_state_is_told_with_the_way_out(tmp_path):
    """Cut off, of another kind, or a folder: it says what to delete."""
    path = tmp_path / "state"
    advice = rf"; or delete {path} to start anew$"
    checkpoints.write_state(path, {"a": np.zeros(30)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"state: expected a whole safetensors file.*" + advice):
        checkpoints.read_state(path)
    checkpoints.write_arrays(path, {}, METADATA)
    with pytest.raises(InputError, match=r"state: .*navigan_jax\.state; got navigan_jax\.test.*"):
        checkpoints.read_state(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"state: expected a file; got a folder.*" + advice):
        checkpoints.read_state(path)


def test_locked_folder_is_refused_to_a_second_holder_and_free_afterwards(tmp_path):
    """The system's lock counts per opening, so a second one in this process stands for another."""
    with (
        checkpoints.locked(tmp_path),
        pytest.raises(InputError, match="in use; wait for that run"),
        checkpoints.locked(tmp_path),
    ):
        pass
    with checkpoints.locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
