"""The subspace for `make discover-demo`: the leading 16 spectral directions of a layer."""

import ml_collections

from configs import demo_faces


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = demo_faces.get_config()
    config.layer = "main.6"
    config.directions = 16
    config.latents.count = 32
    config.show.plausible_samples = 0
    return config
