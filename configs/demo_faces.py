"""The main job on a DCGAN of faces (64 px), in a few minutes on a laptop: `make demo-faces`.

32 directions of the second layer, 64 latents. The generator comes from
`python -m tools.convert_weights dcgan faces --out runs/weights/faces.safetensors`.
"""

import ml_collections

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = hessian.get_config()
    config.generator = "runs/weights/faces.safetensors"
    config.layer = "main.3"
    config.directions = 32
    config.show.seed = 24
    config.latents.count = 64
    return config
