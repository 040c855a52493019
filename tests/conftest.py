"""What holds for every test: the CPU unless told otherwise, no silent broadcasting, 32 bits.

Programs that several tests share are compiled once, into a folder of this run alone: entries of
such a cache depend on the processor, and a test must not depend on what an earlier run left.
Processes that tests start compile for themselves, so "the same bits" is said of those too.
"""

import os
from collections.abc import Iterator

# Read when JAX is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # of processes that tests start, after ours


@pytest.fixture(scope="session", autouse=True)
def _same_programs_are_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # it may have been found to be off when modules were loaded


@pytest.fixture(scope="module", autouse=True)
def _no_program_outlives_its_module() -> Iterator[None]:
    """Frees compiled programs, which would take many gigabytes by the end."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _no_64_bit_left_on() -> Iterator[None]:
    """Fails a test that leaves 64-bit numbers on, and protects the next one from it."""
    yield
    left_on = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    assert not left_on, "64-bit numbers were left on: turn them on only inside a `with` block"
