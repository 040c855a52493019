"""What directions mean: the response of each factor that gauges read, and names proposed from it.

  python -m navigan_jax.main --config=configs/factors.py --workdir=runs/factors \
      --config.generator=cars --config.directions=runs/demo/directions.safetensors

For another generator, give gauges of your own: a Python file with a function that returns them, see
docs/factors.md.

  ... --config.gauges=my_gauge.py:make
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.task = "factors"
    config.seed = 0  # of the latents
    config.distributed = False  # one process is enough
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, or the name of one in the package: cars
    config.directions = placeholder(str)  # directions.safetensors of an earlier run
    config.gauges = placeholder(str)  # file, my_gauge.py:make, or a name; empty: the generator's
    config.any_weights = False  # True: accept directions found in other weights of the same sizes
    config.choose = "all"  # directions: all, starred, or numbers such as 0,3,8-11, in this order
    config.suggest = True  # write the proposed names beside the directions, for viewer and gallery

    config.latents = ml_collections.ConfigDict()
    config.latents.count = 32  # number of z to average over, at least 2
    config.latents.mix_from = placeholder(int)  # style mixing: w of another z from this row on
    config.steps = 8  # shifts of each direction, an even number: half below 0, half above
    config.raw_shift = 0.0  # s in units of ‖ξ‖ for all directions; 0: each has its shift scale
    config.microbatch = 16  # latents at once; fewer if images are large; 0: as many as fit
    config.memory_gib = 16.0  # for a microbatch of 0

    config.metric = ml_collections.ConfigDict()
    config.metric.name = "nlpd"  # distance for the perceptual change: lpips, nlpd or l2
    config.metric.weights = placeholder(str)  # weights of lpips
    config.metric.size = 0  # side in pixels to which images are resized; 0: not resized
    config.metric.resize = "nearest"  # nearest or antialiased

    config.name = ml_collections.ConfigDict()
    config.name.purity = 0.5  # least share of the largest factor for a name to be proposed
    config.name.change = 0.03  # least change of that factor, as a share of its range
    config.name.consistency = 0.5  # least agreement of the latents, 0 to 1

    config.synthesis = (
        hessian.synthesis_keys()
    )  # as in hessian.py: truncation, noise, label, precision
    return config
