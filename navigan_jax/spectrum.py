"""The spectrum-based method, from a generator and a layer to directions.

`find_directions` is the entry point from Python. The task `hessian` is made of the same parts, and
adds progress, saved state and pictures.
"""

import json
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from navigan_jax import linalg
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Params
from navigan_jax.directions import Directions
from navigan_jax.errors import InputError, NoEffectError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.perceptual.base import Distance
from navigan_jax.subspaces import hessian, products, reduction


def find_directions(
    generator: Generator,
    params: Params,
    metric: Distance,
    z: Float[Array | np.ndarray, "samples latent"],
    *,
    layers: Sequence[str],
    count: int,
    seed: int = 0,
    tolerance: float = 1e-3,
    block_size: int = 2,
    microbatch: int = 16,
    cache_bytes: int = 4 * 2**30,
) -> Directions:
    """Returns the `count` leading eigenvectors of the Hessian of E_z d(G_θ(z), G_{θ+ξ}(z)).

    layers: names of the edited weights. z: the latents to average over. tolerance: the largest
    residual ‖Hξ − λξ‖/λ of a pair. The shift scales are zero, because no image is rendered.
    Raises: InputError for an unknown layer, more directions than weights, or weights that do not
      change the images.
    """
    found = generator.find_layers(layers)
    require_count(count, found)
    objective = products.make_objective(
        generator,
        params_lib.to_device(params),
        metric,
        z,
        found,
        microbatch=microbatch,
        cache_bytes=cache_bytes,
    )
    reduced = reduction.reduce_inputs(objective, at_least=count)
    spectrum = hessian.lanczos_spectrum(
        jax.random.key(seed),
        products.gauss_newton(reduced.objective, cache_bytes=cache_bytes),
        reduced.objective.entries,
        count=count,
        tolerance=tolerance,
        block_size=block_size,
        max_vectors=default_max_vectors(count, block_size),
        max_products=20 * count + 200,
    )
    require_usable(spectrum, objective)
    provenance = {
        "architecture": generator.architecture,
        "digest": params_lib.digest(params),
        "method": "hessian, lanczos",
        "metric": type(metric).__name__.lower(),
        "seed": str(seed),
        "latents": str(len(z)),
        "config": json.dumps({"tolerance": tolerance, "block_size": block_size}),
    }
    return as_directions(spectrum, found, reduced, provenance)


def require_count(count: int, layers: Sequence[EditableLayer]) -> None:
    """Checks that there are at least as many weights as wanted pairs.

    Raises: InputError.
    """
    entries = sum(math.prod(layer.shape) for layer in layers)
    if not 1 <= count <= entries:
        raise InputError(
            f"config.directions: expected 1 to {entries}, the number of weights of "
            f"{describe_layers(layers)}; got {count}; change it"
        )


def require_usable(spectrum: hessian.Spectrum, objective: products.Objective) -> None:
    """Checks that the spectrum is finite and not zero.

    Raises: InputError for NaN or infinity; `NoEffectError` if all products are zero.
    """
    names = describe_layers(objective.layers)
    if not np.isfinite(spectrum.eigenvalues).all():
        raise InputError(
            f"{names}: expected finite products with the Hessian; got NaN or infinity, so some "
            "images are not finite; check the weights (python -m tools.convert_weights inspect "
            "FILE) and the latents"
        )
    if spectrum.eigenvalues[0] <= 0:
        raise NoEffectError(
            f"{names}: expected images that change with these weights; got a gradient of zero; "
            "choose another layer with --config.layer=NAME"
        )


def describe_layers(layers: Sequence[EditableLayer]) -> str:
    """Returns the paths of the layers, separated by commas."""
    return ", ".join(layer.path for layer in layers)


def default_max_vectors(count: int, block_size: int) -> int:
    """Returns how many full-length vectors to keep in memory: 2.75 per pair, at least 160."""
    return max(160, 11 * count // 4, linalg.smallest_max_vectors(count, block_size))


def as_directions(
    spectrum: hessian.Spectrum,
    layers: Sequence[EditableLayer],
    reduced: reduction.Reduction,
    provenance: Mapping[str, str],
) -> Directions:
    """Returns the eigenvectors as directions of the whole layers, with fixed signs."""
    vectors = linalg.fix_signs(reduced.expand(spectrum.vectors))
    unmeasured = np.zeros((len(vectors), 2))
    return Directions(
        basis={path: np.asarray(rows) for path, rows in products.split(layers, vectors).items()},
        measures={"eigenvalue": spectrum.eigenvalues, "residual": spectrum.residuals},
        shift_scales=unmeasured,
        distances=unmeasured,
        provenance=provenance,
    )
