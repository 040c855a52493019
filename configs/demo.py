"""The main job on the StyleGAN2 of cars, in a few minutes on a laptop: `make demo`.

32 directions of a middle layer, 64 latents. The generator comes with the package. It was trained by
regression on rendered scenes, not adversarially, so the meaning of its latents is known.
"""

import ml_collections

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = hessian.get_config()
    config.generator = "cars"
    config.layer = "synthesis/b16/conv1"
    config.directions = 32
    config.latents.count = 64
    return config
