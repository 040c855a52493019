"""What JAX reads from the environment: settled before a run, set aside where no device is needed.

JAX takes a setting from each variable JAX_..., and XLA its flags from XLA_FLAGS. Some of them would
end a run or change its numbers, which come from the config alone.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from navigan_jax.errors import InputError

# Settings of JAX that a run needs as they are by default: with another value it takes hours, stops,
# or draws and finds other numbers.
_SETTLED: Mapping[str, Any] = {
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
    """Forgets what JAX and XLA would read, for programs that move weights and compute nothing.

    They run on the CPU, which is always there. Must come before JAX is imported.
    """
    for name in list(os.environ):
        if name.startswith(("JAX_", "XLA_")):
            del os.environ[name]
    os.environ["JAX_PLATFORMS"] = "cpu"


def settle() -> None:
    """Imports JAX, with the settings that a run needs; says on stderr which were others.

    Raises: InputError for a variable that JAX or XLA cannot read.
    """
    _require_known_flags()
    try:
        import jax
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"environment: expected variables JAX_... with values that JAX knows; got: {reason}; "
            "correct that variable, or unset it"
        ) from error
    for name, needed in _SETTLED.items():
        came = jax.config.values[name]
        if came != needed:
            jax.config.update(name, needed)
            print(
                f"{name.upper()}={came}: set aside, as the numbers of a run come from its config "
                "alone; unset the variable to see this line no more",
                file=sys.stderr,
            )


def _require_known_flags() -> None:
    """Raises InputError for an XLA_FLAGS over which XLA would end the process.

    Another process tries them, which takes half a second where there are any.
    """
    if "XLA_FLAGS" not in os.environ:
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
    """Checks that the devices are there that the environment asks for.

    Raises: InputError that says which there are.
    """
    import jax
    from jax.extend import backend

    chosen = jax.config.values["jax_default_device"]
    try:
        jax.devices(chosen if isinstance(chosen, str) else None)
    except (RuntimeError, AssertionError):  # the latter of a CUDA that is not installed
        asked = [f"{name}={os.environ[name]}" for name in _PLATFORM if os.environ.get(name)]
        jax.config.update("jax_platforms", "")
        there = ", ".join(sorted(backend.backends()))
        raise InputError(
            f"environment: expected a platform with devices here; got {' '.join(asked) or 'none'}; "
            f"allowed: {there}; unset the variable to let JAX choose, or install what it lacks: "
            "JAX with CUDA is navigan_jax[cuda], for TPUs navigan_jax[tpu]"
        ) from None
