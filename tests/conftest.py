"""What holds for every test: the CPU unless told otherwise, no silent broadcasting, 32 bits.

There is no persistent compilation cache: its entries depend on the processor, and a test that
counts compilations would see another number on its second run.
"""

import os
from collections.abc import Iterator

# Read when JAX is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


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
