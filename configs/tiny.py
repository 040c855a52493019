"""Any experiment at tiny size, in seconds, for tests: --config=configs/tiny.py:hessian."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import discover, edit, factors, gallery, hessian, invert, maps, sweep

_EXPERIMENTS = {
    "hessian": hessian.get_config,
    "discover": discover.get_config,
    "sweep": sweep.get_config,
    "gallery": gallery.get_config,
    "maps": maps.get_config,
    "factors": factors.get_config,
    "edit": edit.get_config,
    "invert": invert.get_config,
}

_SPECTRUM = {
    "directions": 3,
    "latents.count": 6,
    "metric.size": 0,
    "solver.block_size": 2,
    "solver.max_vectors": 40,
    "microbatch": 4,
    "show.samples": 2,
    "show.steps": 3,
    "show.calibration_latents": 4,
    "show.plausible_samples": 40,
    "show.animated": 2,
}
SIZES: Mapping[str, Mapping[str, Any]] = {
    "hessian": _SPECTRUM,
    "sweep": {
        **_SPECTRUM,
        "page.directions": 2,
        "page.samples": 2,
        "page.map_latents": 3,
        "page.map_steps": 2,
    },
    "gallery": {
        "show.samples": 2,
        "show.steps": 3,
        "video.directions": 2,
        "video.samples": 2,
        "video.seconds": 0.4,
    },
    "maps": {"latents.count": 6, "steps": 3, "microbatch": 4, "show.samples": 2},
    "factors": {"latents.count": 5, "steps": 4, "microbatch": 4},
    "edit": {},
    "invert": {"steps": 6, "start_samples": 4},
    "discover": {
        "directions": 3,
        "metric.size": 0,
        "microbatch": 4,
        "reconstructor.side": 32,
        "batch": 4,
        "steps": 8,
        "log_steps": 2,
        "save_steps": 4,
        "image_steps": 4,
        "held_out.rounds": 2,
        "held_out.final_rounds": 4,
        "show.samples": 2,
        "show.steps": 3,
        "show.calibration_latents": 4,
        "show.plausible_samples": 40,
        "show.animated": 2,
    },
}


def get_config(experiment: str) -> ml_collections.ConfigDict:
    """Returns the config of `experiment` with small sizes.

    Raises: ValueError for an unknown experiment.
    """
    if experiment not in _EXPERIMENTS:
        raise ValueError(f"expected one of {', '.join(_EXPERIMENTS)}; got {experiment!r}")
    config = _EXPERIMENTS[experiment]()
    config.update_from_flattened_dict(SIZES[experiment])
    return config
