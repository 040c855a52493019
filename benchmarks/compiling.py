"""The second run of the same shapes: with the compiled programs that the first one kept, and anew.

  python -m benchmarks.compiling
  python -m benchmarks.compiling --side 128
  python -m benchmarks.compiling --gradient

Three processes of `navigan_jax.main` find a tiny spectrum of a StyleGAN2 with the layers of
config-f and few channels, which is slow to compile and quick to run. The first has no cache, the
second an empty one, the third the programs that the second kept. Their directions have to be equal
to the bit.
`--gradient` compiles the gradient of the whole config-f instead, and runs nothing.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax

from benchmarks import common
from benchmarks.stylegan2 import config_f
from navigan_jax.checkpoints import read_arrays
from navigan_jax.generators.files import make_generator, write_generator

CHANNELS = 16


def run(folder: pathlib.Path, name: str, *, keep: bool) -> tuple[float, float]:
    """Runs the task; returns seconds of the clock and of the processor."""
    command = [sys.executable, "-m", "navigan_jax.main", "--config=configs/tiny.py:hessian"]
    command += [f"--config.generator={folder / 'generator.safetensors'}"]
    command += ["--config.layer=synthesis/b8/conv0/kernel", "--config.metric.name=l2"]
    command += [
        "--config.directions=1",
        "--config.solver.tolerance=0.1",
        "--config.show.animated=1",
    ]
    command += [f"--config.compilation_cache={keep}", f"--workdir={folder / name}"]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    variables["NAVIGAN_CACHE"] = str(folder / "cache")
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=variables, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - began
    print(
        f"{name:9} {seconds:6.1f} s by the clock, {processor:6.1f} s of the processor", flush=True
    )
    return seconds, processor


_GRADIENT = """
import sys, time
import jax, jax.numpy as jnp
from benchmarks.stylegan2 import config_f
from navigan_jax import cache
from navigan_jax.generators.files import make_generator
if sys.argv[1] == "True":
    cache.keep_programs()
generator = make_generator("stylegan2", config_f(int(sys.argv[2])))
params = jax.eval_shape(generator.init, jax.random.key(0))
z = jax.ShapeDtypeStruct((1, *generator.space.shape), jnp.float32)
def loss(params, z):
    return jnp.sum(generator.synthesize(params, generator.map_latent(params, z)) ** 2)
lowered = jax.jit(jax.grad(loss)).lower(params, z)
began = time.perf_counter(), time.process_time()
lowered.compile()
print(time.perf_counter() - began[0], time.process_time() - began[1])
"""


def compile_gradient(side: int) -> None:
    """Prints seconds to compile the gradient of config-f, anew and from the cache."""
    common.say_where()
    spent = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, keep in (("without", False), ("first", True), ("second", True)):
            shown = subprocess.run(
                [sys.executable, "-c", _GRADIENT, str(keep), str(side)],
                cwd=common.ROOT,
                env={**os.environ, "NAVIGAN_CACHE": folder},
                check=True,
                capture_output=True,
                text=True,
            )
            spent[name] = tuple(map(float, shown.stdout.split()))
            clock, processor = spent[name]
            print(f"{name:9} {clock:6.1f} s by the clock, {processor:6.1f} s of the processor")
    for number, kind in enumerate(("clock", "processor")):
        common.ratio(f"second run, {kind}", spent["without"][number] / spent["second"][number])


def main(side: int) -> None:
    """Prints seconds of each run, the size of what is kept, and ratios."""
    common.say_where()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sizes = config_f(side)
        sizes["channels"] = [CHANNELS] * len(sizes["channels"])
        params = make_generator("stylegan2", sizes).init(jax.random.key(0))
        write_generator(folder / "generator.safetensors", "stylegan2", sizes, params, {})
        runs = [("without", False), ("first", True), ("second", True)]
        spent = {name: run(folder, name, keep=keep) for name, keep in runs}
        files = list((folder / "cache").rglob("*-cache"))
        size = sum(path.stat().st_size for path in files)
        print(f"{len(files)} programs of {size / 2**20:.1f} MB are kept")
        found = [read_arrays(folder / name / "directions.safetensors")[0] for name, _ in runs]
        same = all(one[key].tobytes() == found[0][key].tobytes() for one in found for key in one)
        print(f"directions of the three runs: {'the same bits' if same else 'DIFFERENT'}")
    for number, kind in enumerate(("clock", "processor")):
        common.ratio(f"second run, {kind}", spent["without"][number] / spent["second"][number])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--gradient", action="store_true", help="of the whole config-f")
    options = parser.parse_args()
    (compile_gradient if options.gradient else main)(options.side)
