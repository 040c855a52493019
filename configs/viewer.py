"""A page on this machine to view, combine, name and save directions.

  python -m navigan_jax.main --config=configs/viewer.py --workdir=runs/viewer \
      --config.generator=cars \
      --config.directions=runs/demo/directions.safetensors

Prints the address and serves until Ctrl-C. On another machine: forward its port with
ssh -L 9000:localhost:8017 MACHINE and open http://localhost:9000/, or behind a proxy such as
Jupyter's set --config.address=https://hub.example/user/ann/proxy/8017/.

Names, stars and good ranges are saved beside the directions, in directions.notes.json. Latents of
your own that you open in the page are saved in the workdir.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.task = "viewer"
    config.seed = 0  # of the samples shown first; the page draws others
    config.distributed = False  # the viewer is one process
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.directions = placeholder(str)  # directions found in it, e.g. by configs/hessian.py
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    config.source = placeholder(str)  # the checkpoint the generator was converted from, if edited
    # copies of it are to be exported
    config.gauges = placeholder(str)  # read factors off the image: a file, my_gauge.py:make, or a
    # name; nothing: those of the generator if it has some; "none": no gauges
    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision
    config.samples = 8  # shown side by side

    config.port = 8017  # 0: any that is free; a fixed one keeps bookmarks and open pages alive
    config.host = "127.0.0.1"  # this machine only; at any other address the page needs a token
    config.address = placeholder(str)  # behind a proxy (Jupyter, code-server, nginx): the address
    #   that the browser shows, https://hub.example/user/ann/proxy/8017/; asks for a token too
    config.token = placeholder(str)  # 16 or more letters and digits; nothing: drawn at each start
    return config
