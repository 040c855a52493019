"""TASKS = {name: function(config, workdir)}: each unpacks its config, wires the rest, writes files.

Configs end in this package: below, functions take plain arguments. A task is resumed by running
it again: what is finished is read back, what was interrupted goes on from its last saved state.
"""

import pathlib
from collections.abc import Callable

from navigan_jax.config import Config
from navigan_jax.tasks import bake, discover, edit, gallery, hessian, maps, sweep, viewer

TASKS: dict[str, Callable[[Config, pathlib.Path], None]] = {
    "hessian": hessian.run,
    "discover": discover.run,
    "sweep": sweep.run,
    "gallery": gallery.run,
    "maps": maps.run,
    "viewer": viewer.run,
    "edit": edit.run,
    "bake": bake.run,
}
