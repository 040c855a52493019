"""Finds photographs in a generator, so that directions can edit them.

  python -m navigan_jax.main --config=configs/invert.py --workdir=runs/me \
      --config.generator=ffhq.safetensors --config.images=photo.jpg

  --config=configs/invert.py:standard   the projector of StyleGAN2 to the letter, to compare with
  --config=configs/invert.py:tuned      then also tunes the weights to each photograph

Writes inverted.safetensors, which the tasks edit, gallery and bake take, comparison.png, a table,
and each photograph with the generator's image pasted back. Photographs are independent of each
other: more of them may be added to config.images later, and those that are done are kept. These
keys may change too between runs in one workdir: directions, any_weights, show.*, paste.* and
save_minutes.

Expect: 5 seconds a photograph for the network of cars on two cores with NLPD; see
docs/photographs.md for LPIPS and for the standard projector.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian

VARIANTS = ("default", "standard", "tuned")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    """Returns the config; `variant` is "default", "standard" or "tuned".

    Raises: ValueError for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"expected the variant {', '.join(VARIANTS)}; got {variant!r}")
    standard = variant == "standard"
    config = ml_collections.ConfigDict()
    config.task = "invert"
    config.seed = 0  # of samples and jitter
    config.distributed = False  # one process is enough
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.images = placeholder(str)  # photographs or folders of them, with commas
    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision

    config.place = ml_collections.ConfigDict()
    config.place.method = "centre"  # centre, box or face: the part of the photograph that is used
    config.place.box = ()  # for box: left, top, right, bottom in pixels
    config.place.landmarks = placeholder(str)  # for face: JSON, see docs/photographs.md
    config.place.face = -1  # for face: its number in the photograph; -1: all faces

    config.space = "w" if standard else "w_plus"  # w, w_plus, or z (all that some generators have)
    config.noise = standard  # True: noise maps are fitted too (adam only)
    config.start = "mean"  # mean, best (of start_samples samples), or a file of latents
    config.start_samples = 64  # images of samples that best compares with the photograph
    config.method = "adam" if standard else "gauss_newton"  # then quasi-Newton steps, or adam
    config.steps = 1000 if standard else 200  # images that are compared by the metric
    config.usual = 0.0 if standard else 0.002  # weight that keeps codes near those of samples

    config.metric = ml_collections.ConfigDict()
    config.metric.name = "lpips" if standard else "nlpd"  # nlpd, l2 or lpips (standard: lpips)
    config.metric.weights = placeholder(str)  # for lpips: file made by tools/convert_weights
    config.metric.size = 0  # side in pixels to which images are resized; 0: averaged to at most 256
    config.metric.resize = "antialiased"  # nearest or antialiased

    config.tune = ml_collections.ConfigDict()
    config.tune.steps = 350 if variant == "tuned" else 0  # at most, of pivotal tuning; 0: none
    config.tune.rate = 3e-4  # of adam on the weights
    config.tune.until = 0.06  # distance at which tuning ends (its authors': of LPIPS with AlexNet)
    config.tune.locality = 0.0  # weight of changes of other images (its authors': 0.1 if used)
    config.tune.rank = 0  # of the change of each weight; 0: full

    config.directions = placeholder(str)  # directions file: its first directions are shown too
    config.any_weights = False  # True: also directions found in other weights of the same sizes
    config.show = ml_collections.ConfigDict()
    config.show.directions = 3  # directions in comparison.png

    config.paste = ml_collections.ConfigDict()
    config.paste.feather = 0.1  # width of the soft border, as a share of the image's side

    config.save_minutes = 1.0  # between saves of the state, from which a run resumes
    return config
