"""TASKS = {name: function(config, workdir)}: a task unpacks its config, runs and writes files.

Configs end in this package: functions below it take plain arguments. To resume a task, run it
again: finished results are read back, interrupted work goes on from its last saved state.
"""

import pathlib
from collections.abc import Callable

from navigan_jax.config import Config
from navigan_jax.tasks import (
    bake,
    discover,
    edit,
    factors,
    gallery,
    hessian,
    invert,
    maps,
    sweep,
    viewer,
)

TASKS: dict[str, Callable[[Config, pathlib.Path], None]] = {
    "hessian": hessian.run,
    "discover": discover.run,
    "sweep": sweep.run,
    "gallery": gallery.run,
    "maps": maps.run,
    "factors": factors.run,
    "viewer": viewer.run,
    "invert": invert.run,
    "edit": edit.run,
    "bake": bake.run,
}
