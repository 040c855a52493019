"""Makes `python benchmarks/NAME.py` work from any folder, as `python -m benchmarks.NAME` does.

A script that is run as a file imports this module first, because Python then finds modules only in
the script's own folder.
"""

import pathlib
import runpy
import sys

_script = pathlib.Path(sys.argv[0]).resolve()
sys.path[0] = str(_script.parents[1])
runpy.run_module(f"benchmarks.{_script.stem}", run_name="__main__", alter_sys=True)
sys.exit()
