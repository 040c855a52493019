"""Where in the image directions act: mean squared change of every pixel.

  python -m navigan_jax.main --config=configs/maps.py --workdir=runs/maps \
      --config.generator=cars \
      --config.directions=runs/demo/directions.safetensors --config.choose=0-7

  --config=configs/maps.py:paper   the setting of Cherepkov et al. 2021, figure 12: 1600 latents and
      20 shifts from -100 to 100, in units of ‖ξ‖ (meant for StyleGAN2: smaller generators break
      long before; there --config.raw_shift=0 takes each direction's own scale)

Expect, for the paper's setting and one direction of the faces' conv1: 165 seconds of processor
time on two cores and 0.8 GiB at the peak; each further direction takes nearly as long, and the
memory of its weights.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    """Returns the config; `variant` is "default" or "paper".

    Raises: ValueError for another variant.
    """
    if variant not in ("default", "paper"):
        raise ValueError(f"expected the variant default or paper; got {variant!r}")
    paper = variant == "paper"
    config = ml_collections.ConfigDict()
    config.task = "maps"
    config.seed = 0  # of the latents averaged over
    config.distributed = False  # one process is enough
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.directions = placeholder(str)  # directions.safetensors of an earlier run
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    config.choose = "all"  # all, starred, or numbers like 0,3,8-11: in that order

    config.latents = ml_collections.ConfigDict()
    config.latents.count = 1600 if paper else 64  # z averaged over (paper: 1600)
    config.latents.mix_from = placeholder(int)  # style mixing: w of another z from this row on
    config.steps = 20 if paper else 8  # shifts averaged over, evenly from −s to +s (paper: 20)
    config.raw_shift = 100.0 if paper else 0.0  # s in ‖ξ‖, the same for all; 0: own scales
    config.microbatch = 16  # latents at once, fewer where images are large; 0: as many as fit
    config.memory_gib = 16.0  # for a microbatch of 0

    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision

    config.show = ml_collections.ConfigDict()
    config.show.seed = 0  # seed of the samples; the first one is shown edited
    config.show.samples = 4  # images that maps are laid over
    return config
