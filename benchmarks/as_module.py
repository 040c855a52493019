"""`python benchmarks/NAME.py`, from whatever folder, goes on as `python -m benchmarks.NAME`.

A script imports this first where it is run as a file: only its own folder is then in the path.
"""

import pathlib
import runpy
import sys

_script = pathlib.Path(sys.argv[0]).resolve()
sys.path[0] = str(_script.parents[1])
runpy.run_module(f"benchmarks.{_script.stem}", run_name="__main__", alter_sys=True)
sys.exit()
