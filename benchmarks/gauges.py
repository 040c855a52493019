"""What the gauges of cars cost: microseconds an image, against the generator that makes it.

python -m benchmarks.gauges        (half a minute)
"""

if not __package__:
    import as_module  # noqa: F401

import jax
import numpy as np

from benchmarks import common
from navigan_jax import params as params_lib
from navigan_jax.evaluation.gauges import read_gauges
from navigan_jax.generators.files import read_generator

ROUNDS = 20


def main() -> None:
    common.make_parser(__doc__).parse_args()
    common.say_where()
    generator, params = read_generator("cars")
    params = params_lib.to_device(params)
    gauges = read_gauges("cars")
    render = jax.jit(
        lambda params, z: generator.synthesize(params, generator.map_latent(params, z))
    )
    for batch in (1, 64):
        z = generator.sample_latents(jax.random.key(0), batch)
        images = render(params, z)
        gauges.read(images)  # compiles
        spent: dict[str, list[np.ndarray]] = {"generator": [], "gauges": []}
        for _ in range(ROUNDS):
            watch = common.Stopwatch()
            jax.block_until_ready(render(params, z))
            spent["generator"].append(watch.read())
            watch = common.Stopwatch()
            gauges.read(images)
            spent["gauges"].append(watch.read())
        found = {name: 1e6 * np.median(rows, axis=0) / batch for name, rows in spent.items()}
        for name, (clock, processor) in found.items():
            print(
                f"batch {batch:2} {name:9} {clock:7.0f} µs an image, {processor:7.0f} of processors"
            )
        common.ratio(
            f"gauges_to_generator_batch{batch}", found["gauges"][0] / found["generator"][0]
        )


if __name__ == "__main__":
    main()
