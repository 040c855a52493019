"""Top of the spectrum of a perceptual distance's Hessian at one layer: unsupervised directions.

  python -m navigan_jax.main --config=configs/hessian.py --workdir=runs/hessian \
      --config.generator=runs/weights/faces.safetensors --config.layer=main.3

  --config=configs/hessian.py:paper   the setting of Cherepkov et al. 2021: LPIPS and ten power
      iterations a direction by central differences (set --config.metric.weights=lpips.safetensors)
  --config=configs/hessian.py:paper_code   the same with the iterations of its official script, 20

The defaults find the same eigenvectors to a residual of 1e-3 with about a third of the products,
each several times cheaper. A generator file comes from tools/convert_weights.

In a workdir that holds a run, the keys of show, and microbatch, cache_gib, memory_gib and
save_minutes, may change: the directions are kept and the pictures made anew. Where show.change,
calibration_latents or plausible_* changed, the shift scales in the file are measured anew too. For
any other key take another workdir.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def synthesis_keys() -> ml_collections.ConfigDict:
    """Returns the keys `synthesis` of all tasks that make images.

    All are empty, which means: as the recipe has it, where there is one and it says so, or else the
    default told here. What is set counts in any case.
    """
    keys = ml_collections.ConfigDict()
    keys.truncation = placeholder(float)  # ψ of w' = w_avg + ψ (w − w_avg); default 1: none, as
    # in the paper
    keys.truncation_cutoff = placeholder(int)  # of so many first rows; default: all
    keys.noise = ""  # constant: the stored one (default); random: one other draw; none
    keys.noise_seed = placeholder(int)  # of the random one; default 0
    keys.label = placeholder(str)  # class by name or index; default: random ones
    keys.precision = ""  # float32 (default), or bfloat16: features between layers, in half the room
    return keys


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    """Returns the config; `variant` is "default", "paper" or "paper_code".

    Raises: ValueError for another variant.
    """
    if variant not in ("default", "paper", "paper_code"):
        raise ValueError(f"expected the variant default, paper or paper_code; got {variant!r}")
    paper = variant != "default"
    config = ml_collections.ConfigDict()
    config.task = "hessian"
    config.seed = 0  # of the latents, the solver and the samples shown
    config.distributed = False  # True on a pod: joins its processes before anything else
    config.compilation_cache = True  # programs that are compiled stay for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.layer = placeholder(str)  # a layer, or several with commas; a wrong name lists all
    config.directions = 64  # eigenpairs to find (paper: 64)

    config.latents = ml_collections.ConfigDict()
    config.latents.count = 512  # z over which the distance is averaged (paper: 512)
    config.latents.path = placeholder(str)  # .npz or .npy to use instead, with z [count, z_dim],
    #   w [count, w_dim] or [count, rows, w_dim], as projectors write it; w is not truncated
    config.latents.mix_from = placeholder(int)  # style mixing: w of another z from this row on

    config.synthesis = synthesis_keys()

    config.metric = ml_collections.ConfigDict()
    config.metric.name = "lpips" if paper else "nlpd"  # nlpd, l2 or lpips (paper: lpips)
    config.metric.weights = placeholder(str)  # for lpips: file made by tools/convert_weights
    config.metric.size = 64  # side in pixels the images are resized to; 0 leaves them as they are
    config.metric.resize = "nearest"  # nearest (the paper's code) or antialiased

    config.solver = ml_collections.ConfigDict()
    config.solver.name = "power" if paper else "lanczos"  # lanczos, or power as in the paper
    config.solver.product = "gauss_newton"  # for lanczos: gauss_newton or exact (equal, dearer)
    config.solver.tolerance = 1e-3  # residual ‖Hv − λv‖/λ of every pair at which lanczos stops
    config.solver.block_size = 2  # vectors a step of lanczos: 1 to 4 on CPU, 8 to 16 on GPU
    config.solver.max_vectors = 0  # whole vectors held at once; 0: 3 per direction, 160 or more
    config.solver.max_products = 4000  # lanczos gives up after these, and says so
    iterations = 20 if variant == "paper_code" else 10
    config.solver.iterations = iterations  # for power: per direction (paper: 10; its code: 20)
    config.solver.epsilon = 0.1  # for power: step of the central differences (paper: 0.1)

    config.microbatch = 16  # latents a device takes at once; 0: as many as fit memory_gib
    config.memory_gib = 16.0  # for a microbatch of 0: per device, on CPU of the whole process
    config.cache_gib = 4.0  # per device, for what need not be computed twice
    config.save_minutes = 1.0  # between saves of the solver's state, from which a run resumes

    config.show = ml_collections.ConfigDict()
    config.show.seed = 0  # of the samples shown
    config.show.samples = 4  # images per direction, from fresh latents
    config.show.steps = 9  # shifts from −s to +s, an odd number: the middle one is the original
    config.show.change = 0.16  # of the images at ±s, as a share of the distance between two random
    # images; s is less on a side where images would not stay plausible
    config.show.calibration_latents = 16  # z over which that distance is averaged
    config.show.plausible_samples = 512  # own images that tell what is plausible; 0: do not ask
    config.show.plausible_quantile = 0.8  # of their oddities: the bound of plausible shifts
    config.show.animated = 6  # directions in the animation
    return config
