"""Every command from a StyleGAN2 checkpoint to a baked edit, for each format: time and memory.

  python -m benchmarks.pipeline        (a quarter of an hour on two cores)
  python -m benchmarks.pipeline --resolution=16      (a trial)

Config-f at 256 px with random weights is written in the three formats. Each file is converted and
inspected, and the spectrum task finds 2 directions of convs.3 over 2 latents. One of them is baked
into a copy of the file, which is converted again and compared with the shifted weights. Each
command is a process of its own; its peak is that of the resident memory. All three formats have to
give the same results.
"""

if not __package__:
    import as_module  # noqa: F401

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import common
from benchmarks.config_f import WRITERS, draw_params
from navigan_jax import params as params_lib
from navigan_jax.directions import read_directions
from navigan_jax.editing.edit import apply_edit
from navigan_jax.generators.files import read_generator

SHIFT = 25.0
SPECTRUM = {
    "layer": "3",
    "directions": 2,
    "latents.count": 2,
    "microbatch": 2,
    "solver.tolerance": 0.1,
    "show.samples": 1,
    "show.steps": 3,
    "show.calibration_latents": 2,
}


# Runs a module, and writes its peak where the first argument says. What the system tells of a child
# afterwards begins with the size of its parent.
PROGRAM = """
import pathlib, runpy, sys
_, out, module, *arguments = sys.argv
sys.argv = [module, *arguments]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path(out).write_text(status.partition("VmHWM:")[2].split()[0])
"""


def run(peak: pathlib.Path, *arguments: str) -> tuple[float, float]:
    """Runs a module in a process; returns its seconds and its peak memory in bytes.

    Raises: SystemExit with the last lines of its output if it fails.
    """
    began = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, str(peak), *arguments]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=common.ROOT,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}")
    return time.perf_counter() - began, 1024 * int(peak.read_text())


def commands(source: pathlib.Path, folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the arguments of each command, in order."""
    convert = ["tools.convert_weights", "stylegan2"]
    generator, found = folder / "generator.safetensors", folder / "hessian"
    baked = folder / f"baked{source.suffix}"
    yield "convert", [*convert, str(source), "--out", str(generator)]
    yield "inspect", ["tools.convert_weights", "inspect", str(source)]
    keys = [f"--config.{key}={value}" for key, value in SPECTRUM.items()]
    task = ["navigan_jax.main", f"--config.generator={generator}"]
    yield (
        "spectrum and gallery",
        [*task[:1], "--config=configs/hessian.py", f"--workdir={found}", *task[1:], *keys],
    )
    yield (
        "bake",
        [
            *(*task[:1], "--config=configs/bake.py", f"--workdir={folder / 'bake'}", *task[1:]),
            *(f"--config.source={source}", f"--config.out={baked}"),
            f"--config.directions={found / 'directions.safetensors'}",
            *("--config.indices=(0,)", f"--config.shifts=({SHIFT},)"),
        ],
    )
    again = folder / "again.safetensors"
    yield "convert again", [*convert, str(baked), "--out", str(again)]


def check(folder: pathlib.Path) -> tuple[str, np.ndarray]:
    """Checks that baked weights are the shifted ones; returns digest and eigenvalues."""
    _, params = read_generator(folder / "generator.safetensors")
    _, again = read_generator(folder / "again.safetensors")
    digest = params_lib.digest(params)
    directions = read_directions(folder / "hessian" / "directions.safetensors", digest=digest)
    shifted = params_lib.flatten(apply_edit(params, directions.edit(0), SHIFT))
    for path, got in params_lib.flatten(again).items():
        np.testing.assert_allclose(got, shifted[path], rtol=1e-6, atol=1e-6, err_msg=path)
    return digest, directions.measures["eigenvalue"]


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--resolution", type=int, default=256)
    resolution = parser.parse_args().resolution
    common.say_where()
    params = draw_params(resolution)
    print(f"{'format':18} {'command':22} {'seconds':>8} {'peak MB':>8}")
    results = []
    with tempfile.TemporaryDirectory() as place:
        for name, (suffix, write) in WRITERS.items():
            folder = pathlib.Path(place) / name.replace(" ", "_")
            folder.mkdir()
            source = folder / f"network{suffix}"
            write(source, params)
            print(f"{name:18} {source.stat().st_size / 1e6:.0f} MB", flush=True)
            for label, arguments in commands(source, folder):
                seconds, peak = run(folder / "peak", *arguments)
                print(f"{'':18} {label:22} {seconds:8.1f} {peak / 1e6:8.0f}", flush=True)
            results.append(check(folder))
    digests = {digest for digest, _ in results}
    spread = np.ptp([values for _, values in results], axis=0).max() / results[0][1].max()
    print(
        f"weights of the three formats: {'the same to the bit' if len(digests) == 1 else 'OTHER'}; "
        f"eigenvalues within {spread:.1e}; every baked file holds the shifted weights"
    )
    if len(digests) != 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
