"""The project's cache folder, and the compiled programs that it keeps between runs.

JAX stores a compiled program under a key made of the program, the versions of JAX and XLA, and the
devices. A CPU program holds instructions of one type of processor, and several machines may share a
home folder; so each type of processor has its own folder. Stored programs are executed unchecked,
so the folder belongs to one user, and nobody else may write to it.

A fault of this cache never ends a run: an unreadable program is removed and compiled again.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import shutil
import stat
import warnings

from navigan_jax.errors import InputError

_LIMIT = 2**30  # bytes of stored programs at the start of a run
_FREE = 2**30  # free bytes on the disk, below which no program is stored

# The lines of /proc/cpuinfo that identify a processor: the first four on x86, the others on ARM.
_PROCESSOR = re.compile(
    r"^(?:model name|cpu family|model|flags|CPU implementer|CPU part|Features)\s*:.*$", re.MULTILINE
)
_FAULT = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '(.*?)'")


def cache_folder() -> pathlib.Path:
    """Returns the folder that NAVIGAN_CACHE names, or ~/.cache/navigan_jax.

    Raises: InputError without that variable and without a home folder.
    """
    named = os.environ.get("NAVIGAN_CACHE")
    if named:
        return pathlib.Path(named).expanduser()
    try:
        return pathlib.Path.home() / ".cache" / "navigan_jax"
    except RuntimeError as error:
        raise InputError(
            "NAVIGAN_CACHE: expected a folder for cached files, as this user has no home folder; "
            "got nothing; set NAVIGAN_CACHE=FOLDER"
        ) from error


def keep_programs() -> None:
    """Makes JAX store compiled programs in the cache folder and reuse them.

    This does nothing if the user gave JAX a folder (JAX_COMPILATION_CACHE_DIR) or turned its cache
    off, if there is no folder that only this user may write to, or if the disk is nearly full.
    The oldest programs are removed until at most 1 GiB is left.
    """
    import jax  # here, because `main` imports JAX late

    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return
    try:
        programs = cache_folder() / f"programs-{os.getuid()}"
        folder = programs / f"jax-{jax.__version__}-{_processor()}"
        for each in (programs, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_own(each)
        remove_oldest(programs, _LIMIT)
        if shutil.disk_usage(folder).free < _FREE:
            return
    except (OSError, InputError):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Small programs too: there are hundreds, and reading one takes a tenth of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _forget_faulty(folder)


def _processor() -> str:
    """Returns a name for the processor and the cores in use, on which compiled programs depend."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first = _PROCESSOR.findall(text.partition("\n\n")[0]) or [platform.processor()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [platform.machine(), str(cores), *first]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"


def _require_own(folder: pathlib.Path) -> None:
    """Raises OSError for a folder that another user owns or may write to."""
    found = os.lstat(folder)
    is_open = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or is_open:
        raise PermissionError(folder)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(folder)


def remove_oldest(folder: pathlib.Path, limit: int) -> None:
    """Removes the least recently used files below the folder until `limit` bytes are left.

    The time of use is that of the last write or of the last read, whichever is later. Most file
    systems record a read once a day.
    """
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process removed it
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                used = max(found.st_atime_ns, found.st_mtime_ns)
                files.append((used, found.st_size, path))
    kept = 0
    for _, size, path in sorted(files, reverse=True):
        kept += size
        if kept > limit:
            with contextlib.suppress(OSError):
                path.unlink()


def _forget_faulty(folder: pathlib.Path) -> None:
    """Removes the entries that JAX warns about, and hides these warnings.

    JAX compiles the program again, but would never remove the damaged entry.
    """
    show = warnings.showwarning

    def removing(message: Warning | str, *others: object, **options: object) -> None:
        fault = _FAULT.match(str(message))
        if fault is None:
            show(message, *others, **options)  # type: ignore[arg-type]
            return
        with contextlib.suppress(OSError):
            for path in folder.glob("*-cache"):
                if path.name.rpartition("-")[0].rpartition("-")[0] == fault[1]:
                    path.unlink()

    warnings.showwarning = removing
    # A user may have turned warnings into errors, which would end the run.
    warnings.filterwarnings("always", message=_FAULT.pattern)
