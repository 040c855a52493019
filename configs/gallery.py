"""Shows directions that were found before: a page, a contact sheet, a figure and a video.

  python -m navigan_jax.main --config=configs/gallery.py --workdir=runs/gallery \
      --config.generator=cars \
      --config.directions=runs/demo/directions.safetensors --config.choose=starred

Names, stars and good ranges come from the notes beside the directions (directions.notes.json);
the page lets you change them and saves them as such a file.

Expect: 64 directions of a generator of 64 px, with the samples and steps below, make a page of
8.8 MB and 42 seconds of processor time on one core.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.task = "gallery"
    config.distributed = False  # one process is enough
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.directions = placeholder(str)  # directions.safetensors of an earlier run
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    config.choose = "all"  # all, starred, or numbers like 0,3,8-11: in that order
    config.raw_shift = 0.0  # s in units of ‖ξ‖, the same for all; 0: each direction's shift scale

    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision

    config.show = ml_collections.ConfigDict()
    config.show.seed = 0  # of the samples shown
    config.show.photographs = placeholder(str)  # inverted.safetensors: shown instead of samples
    config.show.samples = 4  # images per direction
    config.show.steps = 17  # shifts from −s to +s, an odd number: the middle one is the original

    config.figure = ml_collections.ConfigDict()
    config.figure.directions = 8  # chosen directions in figure.pdf; 0: no figure

    config.video = ml_collections.ConfigDict()
    config.video.directions = 3  # chosen directions in the videos, a row each; 0: no video
    config.video.samples = 5  # images side by side
    config.video.seconds = 4.0  # from −s to +s and back
    config.video.frames_per_second = 25  # of the file
    config.video.easing = "sine"  # sine, smooth or linear
    return config
