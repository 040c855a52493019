"""Checkpoints from which training resumes, written by Orbax in the background.

A checkpoint is a flat table of arrays by their path in the state, and a record in JSON: what the
loop knows, and the reconstructor's accuracy. The paths let an error name each array that is missing
or of another shape.

This module decides which checkpoints are kept. Orbax's policies forget the accuracies when a run is
started again, and keep the last of equal ones. The rule here: keep the latest, and the best, which
is the first of the highest accuracy. Neither is ever removed, so the result depends on the
accuracies alone, not on where a run was stopped.
"""

import contextlib
import copy
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from navigan_jax import devices, faults
from navigan_jax import params as params_lib
from navigan_jax.checkpoints import make_folder
from navigan_jax.errors import InputError

# Room for the indices and metadata that Orbax writes beside the arrays.
_SPARE_BYTES = 2**20
_REMOVED = ".removed"  # suffix of checkpoints that are being removed


class Checkpoints:
    """The checkpoints of a folder; a `with` block, which ends once the last one is on the disk.

    keep: number of latest checkpoints kept, besides the best. Others are removed when a run begins,
    before each save, and at the end.
    Raises: InputError if the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int) -> None:
        self._folder, self._keep = make_folder(folder).absolute(), keep
        self._is_main = devices.is_main_process()
        # Each process has its own manager: only one process writes, and none waits for another.
        own = devices.process_number()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.PreserveAll(),
            cleanup_tmp_directories=self._is_main,  # files that a killed run left unfinished
            create=False,
            multiprocessing_options=alone,
        )
        with self._disk_errors():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._remove_others()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            with self._disk_errors():
                self.wait()
                self._manager.close()
        else:  # the error that ended the block counts, not one that closing adds
            with contextlib.suppress(Exception):
                self._manager.close()

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Begins to write a state of host arrays; raises errors of the checkpoint before.

        record: JSON values, "accuracy" among them. A checkpoint of this step is not replaced.
        Raises: InputError if writing fails; the checkpoints before stay whole.
        """
        arrays = _flatten(state)
        needed = sum(array.nbytes for array in arrays.values())
        with self._disk_errors():
            self.wait()
            if step in self._manager.all_steps():
                return
            free = shutil.disk_usage(self._folder).free
            if free < needed + needed // 10 + _SPARE_BYTES:
                raise self._full(f"{needed / 1e6:.0f} MB to write and {free / 1e6:.0f} MB free")
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    # A copy, as Orbax writes it later, when the caller may have changed it.
                    record=ocp.args.JsonSave(copy.deepcopy(dict(record))),
                ),
            )

    def wait(self) -> None:
        """Returns once all saves are on the disk and surplus checkpoints are removed.

        Raises: as `save`.
        """
        with self._disk_errors():
            self._manager.wait_until_finished()
            self._remove_others()

    def look_again(self) -> None:
        """Finds checkpoints that another process has saved since."""
        with self._disk_errors():
            self._manager.reload()

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that have a checkpoint, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    def best_step(self) -> int:
        """Returns the first step of the highest accuracy."""
        return max(self.steps, key=lambda step: (self._accuracy(step), -step))

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the state and the record of a step.

        like: a state of the same structure; only the shapes and types of its leaves are used.
        Raises: InputError with the arrays that are missing or of another shape.
        """
        expected = _flatten(like)
        path = self._folder / str(step)
        try:
            read = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
            )
            arrays = {name: np.asarray(array) for name, array in dict(read.state or {}).items()}
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise InputError(
                f"{path}: expected a whole checkpoint; got {faults.in_words(error)}; delete that "
                "folder to go on from the one before"
            ) from error
        if differences := params_lib.describe_differences(expected, arrays):
            raise InputError(
                f"{path}: expected the training state of this config; got another; choose another "
                "--workdir:\n  " + "\n  ".join(differences)
            )
        leaves = [arrays[name].astype(leaf.dtype) for name, leaf in _named_leaves(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), self.record(step)

    def record(self, step: int) -> dict[str, Any]:
        """Returns the record of a step.

        Raises: InputError if it is damaged.
        """
        path = self._folder / str(step) / "record" / "metadata"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: expected the record of a checkpoint; got {faults.in_words(error)}; "
                f"delete {self._folder / str(step)} to go on from the one before"
            ) from error

    def _accuracy(self, step: int) -> float:
        accuracy = float(self.record(step)["accuracy"])
        return accuracy if math.isfinite(accuracy) else -math.inf

    def _remove_others(self) -> None:
        """Removes surplus checkpoints, also those that a killed run was removing."""
        if not self._is_main:
            return
        steps = self.steps
        if len(steps) > self._keep:
            others = set(steps[: -self._keep]) - {self.best_step()}
            for step in others:  # renamed first, so that half a checkpoint is never found
                path = self._folder / str(step)
                path.rename(path.with_suffix(_REMOVED))
            if others:
                self.look_again()
        for path in self._folder.glob(f"*{_REMOVED}"):
            shutil.rmtree(path)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns disk errors of Orbax and TensorStore into one InputError."""
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            number = int(code[1]) if code else getattr(error, "errno", None)
            if number is None:
                raise
            raise self._full(os.strerror(number)) from error

    def _full(self, got: str) -> InputError:
        return InputError(
            f"{self._folder}: expected room for a checkpoint; got {got}; free some space, or "
            "choose another --workdir; the checkpoints before this one are whole, and the same "
            "command goes on from there"
        )


def _named_leaves(state: Any) -> list[tuple[str, Any]]:
    """Returns [(path, leaf)] in the order of the leaves; the paths are unique."""
    pairs = jax.tree_util.tree_flatten_with_path(state)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in pairs]


def _flatten(state: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(state)}
