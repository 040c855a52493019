"""Any experiment shrunk until it runs in seconds, for tests: --config=configs/tiny.py:hessian."""

import ml_collections

from configs import hessian

_EXPERIMENTS = {"hessian": hessian.get_config}


def get_config(experiment: str) -> ml_collections.ConfigDict:
    """Returns the config of `experiment` with small sizes.

    Raises: ValueError for an unknown experiment.
    """
    if experiment not in _EXPERIMENTS:
        raise ValueError(f"expected one of {', '.join(_EXPERIMENTS)}; got {experiment!r}")
    config = _EXPERIMENTS[experiment]()
    config.directions = 3
    config.latents.count = 6
    config.metric.size = 0
    config.solver.block_size = 2
    config.solver.max_vectors = 40
    config.microbatch = 4
    config.show.samples = 2
    config.show.steps = 3
    config.show.calibration_latents = 4
    config.show.animated = 2
    return config
