"""What holds for every test: the CPU unless told otherwise, no silent broadcasting, 32 bits.

Most of the time of the tests is compiling. Two things make it short and change no law:

1. Programs are compiled fast and run slowly, but for those that compute much in 64 bits. Without
   fusion emitters and most passes of LLVM only rounding may differ from what users get, as it does
   on another processor. `XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` does as users do.
2. A program is compiled once in a run, whatever module or process asks for it: all keep theirs in
   one folder. The folder is of this run alone: entries of such a cache depend on the processor, and
   a test must not depend on what an earlier run left.
"""

import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator

# Read when JAX is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_MUCH_MEMORY = 3 << 20  # of a process that runs tests, in kB


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder of compiled programs; the processes that this one starts inherit it."""
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="navigan-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Spares the garbage collector what importing made: a tenth of the time of the tests."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _programs_do_not_fill_the_memory() -> Iterator[None]:
    """They are kept for the next module until the process has taken gigabytes."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MUCH_MEMORY:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _no_64_bit_left_on() -> Iterator[None]:
    """Fails a test that leaves 64-bit numbers on, and protects the next one from it."""
    yield
    left_on = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    assert not left_on, "64-bit numbers were left on: turn them on only inside a `with` block"
