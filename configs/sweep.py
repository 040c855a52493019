"""Which layer? The leading directions of every layer of a generator, on one page to compare.

  python -m navigan_jax.main --config=configs/sweep.py --workdir=runs/sweep \
      --config.generator=cars

Each layer gets a folder like a run of configs/hessian.py. Find more directions there, or show them
with configs/gallery.py. A stopped run resumes with the layer it was at.
"""

import ml_collections

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: hessian.py for many layers, with few directions of each."""
    config = hessian.get_config()
    config.task = "sweep"
    del config.layer
    config.layers = "convolutions"  # convolutions, all, or names with commas
    config.directions = 8  # of each layer
    config.latents.count = 64  # enough to compare layers

    config.page = ml_collections.ConfigDict()
    config.page.directions = 4  # of each layer, shown
    config.page.samples = 3  # images of each direction
    config.page.map_latents = 16  # z averaged over to see where directions act
    config.page.map_steps = 4  # shifts averaged over, evenly from −s to +s
    return config
