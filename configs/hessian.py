"""Top of the spectrum of a perceptual distance's Hessian at one layer: unsupervised directions.

  python -m navigan_jax.main --config=configs/hessian.py --workdir=runs/hessian \
      --config.generator=cars --config.layer=synthesis/b16/conv1

  --config=configs/hessian.py:paper   the setting of Cherepkov et al. 2021: LPIPS and ten power
      iterations a direction by central differences (set --config.metric.weights=lpips.safetensors)
  --config=configs/hessian.py:paper_code   the same with the iterations of its official script, 20

The defaults find the same eigenvectors to a residual of 1e-3 with about a third of the products,
each several times cheaper. A generator file comes from tools/convert_weights.

These keys may change between runs in one workdir: show.*, microbatch, cache_gib, memory_gib and
save_minutes. The directions are kept and the pictures rendered again. If show.change,
show.calibration_latents or show.plausible_* change, the shift scales are measured again too. A
change of any other key needs another workdir.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def synthesis_keys() -> ml_collections.ConfigDict:
    """Returns the `synthesis` keys of all tasks that render images.

    All are empty. An empty key takes the recipe's value, if a recipe sets it, or else the default
    given here. A key that is set takes precedence over the recipe.
    """
    keys = ml_collections.ConfigDict()
    keys.truncation = placeholder(float)  # ψ of w' = w_avg + ψ (w − w_avg); default 1: no
    # truncation, as in the paper
    keys.truncation_cutoff = placeholder(int)  # number of first rows truncated; default: all
    keys.noise = ""  # constant: the stored noise (default); random: one new draw; none
    keys.noise_seed = placeholder(int)  # seed of random noise; default 0
    keys.label = placeholder(str)  # class by name or index; default: random classes
    keys.precision = ""  # float32 (default), or bfloat16: features take half the memory
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
    config.seed = 0  # seed of the latents and the solver
    config.distributed = False  # True on a pod: joins its processes before anything else
    config.compilation_cache = True  # keeps compiled programs for the next run

    config.generator = placeholder(str)  # generator file, made by tools/convert_weights
    config.layer = placeholder(str)  # a layer, or several with commas; a wrong name lists them
    config.directions = 64  # eigenpairs to find (paper: 64)

    config.latents = ml_collections.ConfigDict()
    config.latents.count = 512  # z over which the distance is averaged (paper: 512)
    config.latents.path = placeholder(str)  # .npz or .npy of latents instead: z [count, z_dim],
    #   w [count, w_dim] or [count, rows, w_dim], as projectors write it; w is not truncated
    config.latents.mix_from = placeholder(int)  # style mixing: w of another z from this row on

    config.synthesis = synthesis_keys()

    config.metric = ml_collections.ConfigDict()
    config.metric.name = "lpips" if paper else "nlpd"  # nlpd, l2 or lpips (paper: lpips)
    config.metric.weights = placeholder(str)  # for lpips: file made by tools/convert_weights
    config.metric.size = 64  # side in pixels to which images are resized; 0: not resized
    config.metric.resize = "nearest"  # nearest (the paper's code) or antialiased

    config.solver = ml_collections.ConfigDict()
    config.solver.name = "power" if paper else "lanczos"  # lanczos, or power as in the paper
    config.solver.product = "gauss_newton"  # for lanczos: gauss_newton, or exact (equal but slower)
    config.solver.tolerance = 1e-3  # residual ‖Hv − λv‖/λ of every pair at which lanczos stops
    config.solver.block_size = 2  # vectors per step of lanczos: 1 to 4 on CPU, 8 to 16 on GPU
    config.solver.max_vectors = 0  # whole vectors held at once; 0: 3 per direction, 160 or more
    config.solver.max_products = 4000  # lanczos stops after these, with a message
    iterations = 20 if variant == "paper_code" else 10
    config.solver.iterations = iterations  # for power: per direction (paper: 10; its code: 20)
    config.solver.epsilon = 0.1  # for power: step of the central differences (paper: 0.1)

    config.microbatch = 16  # latents per device at once; 0: as many as fit memory_gib
    config.memory_gib = 16.0  # for a microbatch of 0: per device, on CPU of the whole process
    config.cache_gib = 4.0  # per device, for cached intermediate results
    config.save_minutes = 1.0  # between saves of the solver's state, from which a run resumes

    config.show = ml_collections.ConfigDict()
    config.show.seed = 0  # of the samples shown
    config.show.samples = 4  # images per direction, from fresh latents
    config.show.steps = 9  # shifts from −s to +s, an odd number: the middle one is the original
    config.show.change = 0.16  # perceptual budget: distance of images at ±s to the original, as a
    # share of that between two random images; s ends earlier at the effective range
    config.show.calibration_latents = 16  # z over which that distance is averaged
    config.show.plausible_samples = 512  # images behind out-of-distribution scores; 0: none
    config.show.plausible_quantile = 0.8  # of their scores: the bound of the effective range
    config.show.animated = 6  # directions in the animation
    return config
