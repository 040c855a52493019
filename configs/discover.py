"""Directions trained together with a reconstructor that has to tell them apart.

  python -m navigan_jax.main --config=configs/discover.py --workdir=runs/discover \
      --config.generator=runs/weights/faces.safetensors --config.layer=main.6

Variants, --config=configs/discover.py:NAME. Names ending in _code take the values of the official
scripts where these differ from the paper (Cherepkov et al. 2021):

  default      singular values of a layer; LeNet; the shift scale is found, for any generator
  svd          the paper: singular values, T = 3500, for a layer of a StyleGAN2
  svd_code     the same: the scripts' README has the paper's values and adds the least shift of 300
  hybrid       the paper: T = 80, in directions of the spectrum (give config.subspace.path)
  hybrid_code  the scripts: T = 60, a weight of 0.25, batches of 32
  latent       GANLatentDiscovery (Voynov and Babenko 2020) in z, to compare with; for w of a
               StyleGAN2 add --config.subspace.latent=w
  full         all weights of one small layer, the shift scale found

config.subspace.path has to hold directions of config.layer, config.subspace.size of them or more.

The paper's scales hold for one layer of one network; elsewhere use config.shift.scale=0. The paper
does not mention a least shift; the variants here take that of the scripts.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from configs import hessian

_PAPER: Mapping[str, Any] = {
    "matrix": "projected",
    "batch": 32,
    "steps": 100_000,
    "reconstructor.name": "resnet18",
    "reconstructor.side": 256,
    "shift.scale": 3500.0,
    "shift.least": 300.0,
    "loss.shift_weight": 2.5e-3,
    "microbatch": 8,
}
_HYBRID: Mapping[str, Any] = {
    **_PAPER,
    "subspace.name": "hessian",
    "subspace.size": 64,
    "batch": 16,
    "shift.scale": 80.0,
    "shift.least": 15.0,
}
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "svd": _PAPER,
    "svd_code": _PAPER,
    "hybrid": _HYBRID,
    "hybrid_code": {**_HYBRID, "batch": 32, "shift.scale": 60.0, "loss.shift_weight": 0.25},
    "latent": {
        **_PAPER,
        "matrix": "orthonormal",
        "subspace.name": "latent",
        "reconstructor.side": 0,
        "shift.scale": 6.0,
        "shift.least": 0.5,
        "loss.shift_weight": 0.25,
    },
    "full": {"subspace.name": "full"},
}


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    """Returns the config of a variant.

    Raises: ValueError for an unknown one.
    """
    if variant not in _VARIANTS:
        raise ValueError(f"expected one of {', '.join(_VARIANTS)}; got {variant!r}")
    config = ml_collections.ConfigDict()
    config.task = "discover"
    config.seed = 0  # seed of matrix, reconstructor, latents and shifts
    config.distributed = False  # True on a pod: joins its processes before anything else
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.layer = placeholder(str)  # a layer, or several with commas; not for latents
    config.directions = 64  # K (paper: 64)
    config.matrix = "projected"  # identity, random, linear, projected (paper), orthonormal

    config.subspace = ml_collections.ConfigDict()
    config.subspace.name = "svd"  # svd, hessian (the hybrid method), full or latent
    config.subspace.path = placeholder(str)  # for hessian: a file of directions of these layers
    config.subspace.size = 0  # for hessian: number of its directions used; 0: all (paper: 64)
    config.subspace.latent = "z"  # for latent: z, or w if the generator has a mapping

    config.shift = ml_collections.ConfigDict()
    config.shift.scale = 0.0  # T, norm of the change; 0: the largest in the effective range
    config.shift.least = 0.1  # smallest |t|; as a share of T if shift.scale is 0
    config.shift.distribution = "uniform"  # uniform in ±T (paper), or normal

    config.loss = ml_collections.ConfigDict()
    config.loss.label_weight = 1.0  # weight of the cross-entropy of the direction
    config.loss.shift_weight = 2.0  # λ, weight of mean |t̂ − t|; divided by T if shift.scale is 0

    config.reconstructor = ml_collections.ConfigDict()
    config.reconstructor.name = "lenet"  # lenet for images of up to 64 pixels, resnet18 (paper)
    config.reconstructor.side = 0  # side in pixels of resized images; 0: not resized (paper: 256)
    config.reconstructor.synchronised = True  # batch statistics of all devices together
    config.reconstructor.weights = placeholder(str)  # for resnet18: file of initial weights

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.directions_rate = 1e-4  # Adam's, of the direction matrix (paper: 1e-4)
    config.optimizer.reconstructor_rate = 1e-4  # Adam's, of the reconstructor (paper: 1e-4)

    config.batch = 32  # pairs per step, over all devices (paper: 32, hybrid 16)
    config.microbatch = 32  # pairs per device at once; lower it if memory runs out
    config.steps = 20_000  # of training (paper: 100000); a larger number continues a finished run
    config.max_hours = 0.0  # of training, all runs of the workdir together; 0: no limit
    config.patience = 0  # evaluations without a gain after which training stops; 0: never
    config.least_gain = 0.002  # least increase of held-out accuracy that counts as a gain

    config.log_steps = 50  # between fetches of the metrics
    config.save_steps = 1000  # between evaluations with a checkpoint; a multiple of log_steps
    config.image_steps = 5000  # between pictures in TensorBoard; a multiple of log_steps
    config.keep = 2  # latest checkpoints kept, besides the best: the first of the highest accuracy

    config.held_out = ml_collections.ConfigDict()
    config.held_out.seed = 1  # seed of the samples for the held-out accuracy
    config.held_out.rounds = 8  # samples of each direction at every evaluation
    config.held_out.final_rounds = 64  # samples of each direction for the final table

    config.rank = ml_collections.ConfigDict()
    config.rank.most_cosine = 0.9  # |cos| above which the worse one of two is a duplicate
    config.rank.most_confused = 0.3  # confused share of samples above which it is a duplicate

    config.synthesis = hessian.synthesis_keys()  # see there: truncation, noise, label, precision

    config.metric = ml_collections.ConfigDict()
    config.metric.name = "nlpd"  # distance for calibration and pictures: nlpd, l2 or lpips
    config.metric.weights = placeholder(str)  # for lpips: file made by tools/convert_weights
    config.metric.size = 64  # side in pixels to which images are resized; 0: not resized
    config.metric.resize = "nearest"  # nearest or antialiased

    config.show = ml_collections.ConfigDict()
    config.show.seed = 0  # of the samples shown
    config.show.samples = 4  # images per direction, from fresh latents
    config.show.steps = 9  # shifts from −s to +s, an odd number: the middle one is the original
    config.show.change = 0.16  # perceptual budget at ±s: share of the distance of two random images
    config.show.calibration_latents = 16  # z over which that distance is averaged
    config.show.plausible_samples = 512  # images for the out-of-distribution score, which gives T
    config.show.plausible_quantile = 0.8  # of their scores: the bound of the effective range
    config.show.animated = 6  # directions in the animation, and in TensorBoard
    with config.unlocked():
        config.update_from_flattened_dict(_VARIANTS[variant])
    return config
