"""What training resumes from: checkpoints by Orbax, written while training goes on.

A checkpoint is a flat table of arrays by their path in the state, so that reading names each array
that is missing or of another shape, and beside it a record in JSON: what the loop knows, and the
reconstructor's accuracy.

Which checkpoints are kept is decided here, not by Orbax, whose policies forget accuracies when a
run is started again and keep the last of equal ones. The rule: the latest are kept, and the best,
which is the first of the highest accuracy. None of these is ever removed, so what is kept depends
on the accuracies alone, not on where a run was stopped.
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

# Orbax writes indices and metadata beside the arrays, and the old checkpoints are there meanwhile.
_SPARE_BYTES = 2**20
_REMOVED = ".removed"  # ends the names of checkpoints that are being removed


class Checkpoints:
    """The checkpoints of a folder, to use in a `with` block; leaving it waits for the last one.

    keep: how many of the latest are kept, besides the best. Others are removed when a run begins,
    before it saves the next one, and at its end.
    Raises: InputError if the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int) -> None:
        self._folder, self._keep = make_folder(folder).absolute(), keep
        self._is_main = devices.is_main_process()
        # Each process for itself: one alone writes, and none waits for the others in here.
        own = devices.process_number()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.PreserveAll(),
            cleanup_tmp_directories=self._is_main,  # what a killed run left unfinished
            create=False,
            multiprocessing_options=alone,
        )
        with self._told():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._remove_others()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            with self._told():
                self.wait()
                self._manager.close()
        else:  # what ended the block counts, not what comes of it here
            with contextlib.suppress(Exception):
                self._manager.close()

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Begins to write a state of host arrays; an error of the one before is raised here.

        record: has "accuracy". A step that is there already is left as it is.
        Raises: InputError if the disk does not take it; the checkpoints before stay whole.
        """
        arrays = _flatten(state)
        needed = sum(array.nbytes for array in arrays.values())
        with self._told():
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
                    # Written later, when what it holds may have changed.
                    record=ocp.args.JsonSave(copy.deepcopy(dict(record))),
                ),
            )

    def wait(self) -> None:
        """Returns once all that was saved is on the disk, and no more than is kept.

        Raises: as `save`.
        """
        with self._told():
            self._manager.wait_until_finished()
            self._remove_others()

    def look_again(self) -> None:
        """Finds what another process saved meanwhile."""
        with self._told():
            self._manager.reload()

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that there are checkpoints of, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    def best_step(self) -> int:
        """Returns the first step of the highest accuracy."""
        return max(self.steps, key=lambda step: (self._accuracy(step), -step))

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Returns state and record of a step.

        like: a state of the same structure; only shapes and types of its leaves count.
        Raises: InputError naming what is missing or of another shape.
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
        """Removes the checkpoints that are not kept, and what a kill left of this."""
        if not self._is_main:
            return
        steps = self.steps
        if len(steps) > self._keep:
            others = set(steps[: -self._keep]) - {self.best_step()}
            for step in others:  # at once: half a checkpoint never has the name of a whole one
                path = self._folder / str(step)
                path.rename(path.with_suffix(_REMOVED))
            if others:
                self.look_again()
        for path in self._folder.glob(f"*{_REMOVED}"):
            shutil.rmtree(path)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what Orbax and TensorStore say of a disk into one message."""
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
    """Returns [(path, leaf)] in the order of the leaves; no two paths are alike."""
    pairs = jax.tree_util.tree_flatten_with_path(state)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in pairs]


def _flatten(state: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in _named_leaves(state)}
