"""Makes the images of a recipe: samples, directions with their shifts, and moves of the latents.

  python -m navigan_jax.main --config=configs/edit.py --workdir=runs/edit \
      --config.generator=cars --config.recipe=recipe.json \
      --config.directions=runs/demo/directions.safetensors

The viewer exports recipes; the images have the same bits as those it showed. A recipe is JSON and
may be written by hand:

  {"format": "navigan_jax.recipe", "version": 1,
   "generator": "DIGEST",
   "samples": [{"seed": 0, "index": 3}, {"z": [0.1, ...]}, {"w_plus": [[...], ...]},
             {"photographs": "DIGEST", "file": "inverted.safetensors", "index": 0}],
   "moves": [{"directions": "DIGEST", "file": "directions.safetensors", "index": 4, "shift": 2.5}],
   "mixes": [{"source": {"seed": 7}, "rows": [8, 9], "amount": 0.5, "samples": [0]}],
   "truncation": 0.7, "enlarge": 2, "synthesis": {"noise": "none", "precision": "float32"},
   "video": {"start": -1, "stop": 1, "seconds": 4, "frames_per_second": 25, "easing": "sine",
             "returns": true}}

All but format, version, generator and samples may be left out; of a move, directions, index and
shift are needed. Each DIGEST is the line "digest" of

  python -m tools.convert_weights inspect FILE

for the generator file, the directions file and inverted.safetensors. Without --config.directions,
the "file" of a move is looked for from the current folder, then from the recipe's, then by its bare
name beside the recipe; the viewer writes the bare name. So it is with the "file" of a photograph.
The image of a photograph is also pasted back into it, where the photograph is still there.

A shift is t, in units of ‖ξ‖. "truncation" is of the mixed latents
of all samples; "synthesis" holds keys of config.synthesis, whose truncation is of drawn ones. A
video is made only where the recipe has "video", of which {} is enough.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.task = "edit"
    config.distributed = False  # one process is enough
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.recipe = placeholder(str)  # JSON, see above
    config.directions = placeholder(str)  # files with commas; left out: those the recipe names
    config.photographs = placeholder(str)  # inverted.safetensors; left out: those the recipe names
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision;
    # a key that is set here takes precedence over the recipe
    return config
