"""64 directions of StyleGAN2 at 1024 px within a budget of memory, on CPU.

  python -m benchmarks.large                     (config-f, 1024 px, within 16 GiB; half an hour)
  python -m benchmarks.large --side 256 --memory 4

The network is config-f with random weights, the layer has 512 x 512 x 3 x 3 weights, the distance
is NLPD at 64 px, nearest interpolation. The task `hessian` finds the directions as for a user: it
saves its state and chooses the microbatch for the budget. Then the shift scale of one direction is
found from images of full size. The peak memory of the process is printed beside the estimate.
"""

if not __package__:
    import as_module  # noqa: F401

import dataclasses
import pathlib
import tempfile
import time

import jax
import numpy as np

from benchmarks import common
from benchmarks.stylegan2 import config_f
from configs import hessian as config_file
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax.generators.files import make_generator
from navigan_jax.perceptual import METRICS
from navigan_jax.perceptual.base import AtSize
from navigan_jax.tasks import budget, calibrating, hessian, inputs
from navigan_jax.tasks.inputs import Problem

LAYER = "synthesis/b64/conv1/kernel"  # convs.7 of NaviGAN


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--latents", type=int, default=2)
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--memory", type=float, default=16.0, help="the budget in GiB")
    options = parser.parse_args()
    common.say_where()
    config = config_file.get_config()
    config.generator, config.layer = "random weights", LAYER
    config.directions, config.latents.count = options.directions, options.latents
    config.microbatch, config.memory_gib = 0, options.memory
    config.solver.tolerance = options.tolerance
    config.show.calibration_latents, config.show.plausible_samples = 2, 8
    config = config_lib.freeze(config)
    generator = make_generator("stylegan2", config_f(options.side))
    drawn = jax.jit(generator.init)(jax.random.key(0))
    params = jax.tree.map(np.asarray, drawn)
    del drawn
    layers = generator.find_layers([LAYER])
    metric = AtSize(METRICS["nlpd"](), 64, "nearest")
    problem = Problem(
        generator, params, params_lib.digest(params), layers, metric, config.generator
    )
    z = inputs.draw_latents(config, generator)
    with tempfile.TemporaryDirectory() as place:
        workdir = pathlib.Path(place)
        began = time.perf_counter()
        directions = hessian.find(config, workdir, problem, z)
        seconds, peak = time.perf_counter() - began, common.peak_bytes()
        print(f"{len(directions)} directions in {seconds:.0f} s; peak {peak / 2**30:.2f} GiB")
        microbatch = int(directions.provenance["microbatch"])
        estimate = budget.estimate_spectrum(config, problem, z, microbatch)
        common.ratio("estimate_over_peak", estimate.total / peak)
        common.ratio("budget_over_peak", options.memory * 2**30 / peak)
        images_at_once = budget.microbatch_of_images(config, problem)
        began = time.perf_counter()
        calibrator = calibrating.make_calibrator(config, problem, images_at_once)
        one = dataclasses.replace(
            directions,
            basis={path: rows[:1] for path, rows in directions.basis.items()},
            measures={name: rows[:1] for name, rows in directions.measures.items()},
            shift_scales=directions.shift_scales[:1],
            distances=directions.distances[:1],
        )
        first = calibrating.calibrate(problem, one, calibrator)
        seconds, peak = time.perf_counter() - began, common.peak_bytes()
        print(
            f"{images_at_once} images at once; shift scale of one direction in {seconds:.0f} s, "
            f"{first.shift_scales[0]}; peak {peak / 2**30:.2f} GiB"
        )
        common.ratio("budget_over_peak_with_images", options.memory * 2**30 / peak)


if __name__ == "__main__":
    main()
