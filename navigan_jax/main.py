"""Runs one task, described by a config file.

  python -m navigan_jax.main --config=configs/hessian.py --workdir=runs/hessian

The config file holds every setting of the run, each with a comment. The command line can change any
of them; flags may come in any order:

  python -m navigan_jax.main --config=configs/hessian.py --config.seed=1 --workdir=runs/seed1

"--config=FILE.py:WORD" chooses a variant, if the head of the file names variants. Results and their
config are written to --workdir; the same command resumes a stopped run.

Exit codes: 0 done; 2 a mistake in the command, the config or a file, told in one message;
130 (Ctrl-C) or 143 (SIGTERM) interrupted; 1 a fault of the program, with its traceback.
"""

import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

# NumPy solves small matrices only, for which its threads wait for each other longer than they
# work: 25 times the processor time where other programs run. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from absl import app, flags, logging
from ml_collections import config_flags

from navigan_jax import cache, checkpoints, command_line, environment
from navigan_jax import config as config_lib
from navigan_jax.errors import InputError

# What main itself reads of every config.
_KEYS = {"task": str, "distributed": bool, "compilation_cache": bool}

# Not locked: a placeholder is set by the command line after the file is read.
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file: FILE.py, or FILE.py:WORD.", lock_config=False
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory for the results; made if missing.")


def main(argv: Sequence[str]) -> None:
    """Validates the config and runs its task."""
    del argv  # nothing is left of it: see parse_flags
    config_lib.validate(_CONFIG.value, _KEYS, others=True)
    config = config_lib.freeze(_CONFIG.value)
    workdir = checkpoints.make_folder(os.path.expanduser(_WORKDIR.value))

    # JAX is imported only here: --help and mistakes in the config are answered without it.
    environment.settle()
    from navigan_jax import devices, tasks

    if config.task not in tasks.TASKS:
        raise InputError(
            f"config.task: expected the name of a task; got {config.task!r}; "
            f"allowed: {', '.join(sorted(tasks.TASKS))}; set it with --config.task=NAME"
        )
    if config.distributed:
        devices.initialize_distributed()
    elif config.compilation_cache:  # one folder that all processes of a pod see is not known here
        cache.keep_programs()
    environment.require_platform()
    try:
        tasks.TASKS[config.task](config, workdir)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        what = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"memory: expected the run to fit; got {what}; {_what_to_lower(config)}"
        ) from error


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line into the flags of this module.

    Raises: InputError for an invalid flag, with what was expected instead.
    """
    if not {"--help", "-help", "-h", "-?"}.isdisjoint(argv):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    path = command_line.find_config(argv[1:])
    if not path:
        raise _no_path("config", "configs/hessian.py")
    config = config_lib.load(path)
    argv = [argv[0], *command_line.in_one_form(argv[1:], path, config)]
    sys.argv = argv  # where `config_flags` looks for overrides
    flags.FLAGS.set_gnu_getopt(True)
    try:
        with warnings.catch_warnings():
            # Of ml_collections, which loads the file by an old method.
            warnings.filterwarnings("ignore", r"the load_module\(\)", DeprecationWarning)
            left_over = flags.FLAGS(argv)[1:]
    except flags.IllegalFlagValueError as error:
        override = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        if override is None:
            raise InputError(f"command line: {error}; see --help") from error
        raise config_lib.misfit(config, *override.groups()) from error
    except flags.Error as error:
        raise InputError(f"command line: {error}; see --help") from error
    if left_over:
        raise InputError(
            "command line: expected --config, --workdir and --config.key=value; got "
            f"{left_over[0]!r}; quote a value that has blanks; see --help"
        )
    if not _WORKDIR.value:
        raise _no_path("workdir", "runs/hessian")
    return []


def _no_path(flag: str, example: str) -> InputError:
    return InputError(
        f"--{flag}: expected a path; got nothing; add one, for example --{flag}={example}; "
        "see --help"
    )


def run() -> NoReturn:
    """Entry point: `main` with the exit codes that the module's docstring lists."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.unraisablehook = _interrupt_again
    # Orbax tells of every file it touches, and of the errors and interruptions that it passes on.
    logging.set_verbosity(logging.FATAL)
    try:
        app.run(main, flags_parser=parse_flags)
    except InputError as error:
        # What came may hold what a terminal would obey.
        shown = (
            c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(error)
        )
        print("".join(shown), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # At once: JAX's threads may still compute, and crash where Python is taken down under them.
        os._exit(128 + (error.args[0] if error.args else signal.SIGINT))


def _interrupt(number: int, frame: object) -> NoReturn:
    del frame
    raise KeyboardInterrupt(number)


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupts again if Python dropped the interrupt, as it does during garbage collection."""
    error = lost.exc_value
    if not isinstance(error, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    number = error.args[0] if error.args else signal.SIGINT
    signal.signal(signal.SIGALRM, lambda _, frame: _interrupt(number, frame))
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # seconds, by which that is over


# Keys that memory grows with, the first ones first: not every task has them all.
_MEMORY_KEYS = ("microbatch", "show.samples", "video.samples")


def _what_to_lower(config: config_lib.Config) -> str:
    """Returns advice against out-of-memory in the keys of this config."""
    keys = config_lib.list_keys(config)
    known = [key for key in _MEMORY_KEYS if key in keys]
    if not known:
        return "make fewer or smaller images at once, and run again"
    others = f" (then {', '.join(f'config.{key}' for key in known[1:])})" if known[1:] else ""
    first = known[0]
    return f"lower config.{first} with --config.{first}=N, down to 1{others}, and run again"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


if __name__ == "__main__":
    run()
