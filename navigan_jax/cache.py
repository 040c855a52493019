"""The project's cache folder, and the compiled programs that are kept there between runs.

JAX keeps a compiled program under a key made of the program, the versions of JAX and XLA, and the
devices. On CPU a program consists of instructions of one processor, so that programs lie in a
folder for each kind of processor as well: a home folder may be that of several machines. Compiled
programs are run as they are read, so that folder belongs to one user, who alone may write to it.

No fault of this cache ends a run: what cannot be read is removed and compiled again.
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

_LIMIT = 2**30  # bytes that programs may take when a run starts
_FREE = 2**30  # bytes of the disk that are left to others

# What tells processors apart in /proc/cpuinfo: of x86 the first four, of ARM the last three.
_PROCESSOR = re.compile(
    r"^(?:model name|cpu family|model|flags|CPU implementer|CPU part|Features)\s*:.*$", re.MULTILINE
)
_FAULT = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '(.*?)'")


def cache_folder() -> pathlib.Path:
    """Returns the folder in NAVIGAN_CACHE, or else ~/.cache/navigan_jax.

    Raises: InputError if there is neither that variable nor a home folder.
    """
    named = os.environ.get("NAVIGAN_CACHE")
    if named:
        return pathlib.Path(named).expanduser()
    try:
        return pathlib.Path.home() / ".cache" / "navigan_jax"
    except RuntimeError as error:
        raise InputError(
            "NAVIGAN_CACHE: expected a folder for files to keep, as this user has no home folder; "
            "got nothing; set NAVIGAN_CACHE=FOLDER"
        ) from error


def keep_programs() -> None:
    """Lets JAX keep the programs that it compiles in the cache folder, and use those kept there.

    Nothing changes where the user gave JAX a folder (JAX_COMPILATION_CACHE_DIR) or turned its cache
    off, where no folder can be had that this user alone writes to, or where the disk is nearly
    full. Of the oldest programs so many are removed that the rest takes 1 GiB at most.
    """
    import jax  # which `main` puts off

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
    # The small ones too: there are hundreds, and reading one takes a tenth of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _forget_faulty(folder)


def _processor() -> str:
    """Returns a word for what compiled programs depend on: the processor and the cores in use."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first = _PROCESSOR.findall(text.partition("\n\n")[0]) or [platform.processor()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = [platform.machine(), str(cores), *first]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:12]}"


def _require_own(folder: pathlib.Path) -> None:
    """Raises OSError for a folder that is not this user's, or that others may write to."""
    found = os.lstat(folder)
    is_open = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or is_open:
        raise PermissionError(folder)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(folder)


def remove_oldest(folder: pathlib.Path, limit: int) -> None:
    """Removes the files used longest ago, below the folder, until the rest takes `limit` bytes.

    A file counts as used when it was written, and when the file system says that it was read, which
    most note once a day.
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
    """Removes entries that JAX warns of, and does not show those warnings.

    JAX compiles the program again, but would leave a damaged entry in its place for ever.
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
    # Also where the user made errors of warnings, which would end the run.
    warnings.filterwarnings("always", message=_FAULT.pattern)
