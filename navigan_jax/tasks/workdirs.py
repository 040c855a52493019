"""A workdir belongs to one config: results of different configs are never mixed or overwritten."""

import json
import pathlib
from collections.abc import Mapping, Sequence

from navigan_jax import checkpoints, devices
from navigan_jax import config as config_lib
from navigan_jax.config import Config
from navigan_jax.errors import InputError

_CONFIG = "config.json"
_INPUTS = "inputs.json"


def claim(
    workdir: pathlib.Path,
    config: Config,
    inputs: Mapping[str, str],
    *,
    results: Sequence[str],
    free_keys: tuple[str, ...],
) -> None:
    """Saves config and inputs in the workdir, after the check of `require_same`.

    Raises: as `require_same`; also InputError if the processes of a run do not share the folder.
    """
    require_same(workdir, config, inputs, results=results, free_keys=free_keys)
    if devices.is_main_process():
        checkpoints.write_text(workdir / _INPUTS, json.dumps(dict(inputs), indent=2) + "\n")
        checkpoints.write_text(workdir / _CONFIG, config_lib.to_text(config))
    devices.wait_for_all("claimed")
    if not (workdir / _CONFIG).exists():
        raise InputError(
            f"{workdir}: expected a folder that all processes share; got one that only this "
            "process sees; choose another --workdir"
        )


def require_same(
    workdir: pathlib.Path,
    config: Config,
    inputs: Mapping[str, str],
    *,
    results: Sequence[str],
    free_keys: tuple[str, ...],
) -> None:
    """Checks that results in the workdir, if any, are of this config and these inputs.

    inputs: SHA-256 of each input file. results: names of result files; without any of them the
      workdir is free. free_keys: prefixes of keys that may change.
    Raises: InputError with the differences.
    """
    if not any((workdir / name).exists() for name in results):
        return
    config_path, inputs_path = workdir / _CONFIG, workdir / _INPUTS
    if not config_path.exists() or not inputs_path.exists():
        raise InputError(
            f"{workdir}: expected config.json and inputs.json beside the results there; got "
            "none; choose another --workdir, or remove this one"
        )
    old_config = config_lib.from_text(checkpoints.read_text(config_path), str(config_path))
    text = checkpoints.read_text(inputs_path)
    old_inputs = config_lib.from_text(text, str(inputs_path)).to_dict()
    changed = [
        line
        for line in config_lib.differences(old_config, config)
        if not line.startswith(free_keys)
    ]
    changed += [
        f"{name}: other content, {str(old_inputs.get(name))[:16]} -> {inputs[name][:16]}"
        for name in inputs
        if old_inputs.get(name) != inputs[name]
    ]
    if changed:
        raise InputError(
            f"{workdir}: expected a workdir of this config; got one with results of another:\n"
            + "".join(f"  {line}\n" for line in changed)
            + "choose another --workdir, or remove this one"
        )


def say(text: str) -> None:
    """Prints a line, in the main process only."""
    if devices.is_main_process():
        print(text, flush=True)


def say_written(workdir: pathlib.Path, files: Mapping[str, str]) -> None:
    """Prints the files that a task wrote: {name: description}."""
    say("wrote:")
    for name, what in files.items():
        say(f"  {workdir / name}  {what}")
