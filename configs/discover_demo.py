"""The hybrid method on a real generator, in ten minutes on two CPU cores: `make discover-demo`.

16 combinations of the leading 16 spectral directions. The layer is the third of the DCGAN of faces
(64 px) of `make demo-faces`; a LeNet tells the directions apart. The spectrum comes from
configs/discover_spectrum.py. The rates are larger than the paper's because the steps are few.
"""

import ml_collections

from configs import discover


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = discover.get_config()
    config.generator = "runs/weights/faces.safetensors"
    config.layer = "main.6"
    config.subspace.name = "hessian"
    config.subspace.path = "runs/discover-demo/spectrum/directions.safetensors"
    config.directions = 16
    config.show.seed = 24
    config.shift.least = 0.2
    config.loss.shift_weight = 0.5
    config.optimizer.directions_rate = 0.01
    config.optimizer.reconstructor_rate = 1e-3
    config.batch = 16
    config.steps = 750
    config.max_hours = 0.09
    config.log_steps = 25
    config.save_steps = 125
    config.image_steps = 500
    return config
