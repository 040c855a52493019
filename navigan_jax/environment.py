"""JAX's environment variables: checked before a run, ignored by programs that need no device.

JAX reads its settings from the variables JAX_..., and XLA its flags from XLA_FLAGS. Some values
would end a run or change its results, which must depend on the config alone.
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from navigan_jax.errors import InputError

# Settings of JAX that a run needs at their default values. With another value the run takes hours,
# stops, or draws other random numbers and finds other results.
_REQUIRED: Mapping[str, Any] = {
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_transfer_guard": None,
}

_PLATFORM = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_DEFAULT_DEVICE")


def set_aside() -> None:
    """Removes the variables of JAX and XLA, for programs that copy weights and compute nothing.

    Such programs run on the CPU, which is always available. Call this before JAX is imported.
    """
    for name in list(os.environ):
        if name.startswith(("JAX_", "XLA_")):
            del os.environ[name]
    os.environ["JAX_PLATFORMS"] = "cpu"


def settle() -> None:
    """Imports JAX with the settings that a run needs; prints the ignored variables to stderr.

    Raises: InputError for a variable that JAX or XLA cannot read.
    """
    _require_known_flags(os.environ.get("XLA_FLAGS"))
    try:
        import jax
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"environment: expected variables JAX_... with values that JAX knows; got: {reason}; "
            "correct that variable, or unset it"
        ) from error
    for name, needed in _REQUIRED.items():
        found = jax.config.values[name]
        if found != needed:
            jax.config.update(name, needed)
            print(
                f"{name.upper()}={found}: ignored, because results must depend on the config "
                "alone; unset the variable to silence this line",
                file=sys.stderr,
            )


@functools.cache
def _require_known_flags(flags: str | None) -> None:
    """Raises InputError if XLA would end the process over XLA_FLAGS.

    flags: the value of the variable, or None. Another process tries it, once for each value.
    """
    if flags is None:
        return
    # XLA alone, which starts five times as fast as JAX, reads them for its first options.
    command = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    fault = re.search(r"\] (.*XLA_FLAGS.*)", tried.stderr)
    if tried.returncode and fault:
        raise InputError(
            f"environment: expected XLA_FLAGS that XLA knows; got: {fault[1]}; correct that "
            "variable, or unset it"
        )


def require_platform() -> None:
    """Checks that this machine has the devices that the environment asks for.

    Raises: InputError that lists the available platforms.
    """
    import jax
    from jax.extend import backend

    chosen = jax.config.values["jax_default_device"]
    try:
        jax.devices(chosen if isinstance(chosen, str) else None)
    except (RuntimeError, AssertionError):  # an AssertionError if CUDA is not installed
        asked = [f"{name}={os.environ[name]}" for name in _PLATFORM if os.environ.get(name)]
        jax.config.update("jax_platforms", "")
        there = ", ".join(sorted(backend.backends()))
        raise InputError(
            f"environment: expected a platform with devices here; got {' '.join(asked) or 'none'}; "
            f"allowed: {there}; unset the variable to let JAX choose, or install JAX for that "
            "platform: navigan_jax[cuda] for GPUs, navigan_jax[tpu] for TPUs"
        ) from None
