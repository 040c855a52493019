"""A first fit of the code in a few Gauss-Newton steps, before the perceptual distance is asked.

The residuals are the differences of the image from the photograph at all sizes of a pyramid, and
the whitened code, which keeps it usual. No feature network runs, so that a product with the
Jacobian is several times cheaper than a gradient of LPIPS at 64 px, and second-order steps get
there in tens of products. On the residuals of LPIPS itself they stall far from the minimum: its
ReLUs and divisions by norms bend too often for a quadratic model.
"""

from typing import Any

import jax.numpy as jnp

from navigan_jax.array_types import Array
from navigan_jax.inversion import objective, trust_region
from navigan_jax.inversion.objective import Problem
from navigan_jax.inversion.trust_region import Solver

USUAL = 0.01  # weight of the mean of u², beside mean squares of images in [-1, 1]
RADIUS = 0.5  # of the first region, as a root mean square of u
STEPS, ITERATIONS = 8, 12  # steps, and iterations of conjugate gradients in each


def residuals(problem: Problem, u: Array) -> tuple[Array, ...]:
    """Returns the residuals of a whitened code [1, ...]."""
    images = objective.images_of(problem, problem.spread.colour(u), {})
    levels = objective.pyramid_levels(*images.shape[1:3])
    differences: Any = objective.pyramid(images - problem.image, levels)
    return (*differences, (USUAL / u.size) ** 0.5 * u)


def make_solver() -> Solver:
    """Returns the solver for all photographs."""
    return trust_region.make_solver(residuals)


def fit(solver: Solver, problem: Problem, code: Array) -> Array:
    """Returns a code near the photograph, from the code [1, ...] where the search begins."""
    u = problem.spread.whiten(code)
    state = solver.begin(problem, u, RADIUS * float(jnp.sqrt(u.size)))
    for later in solver.run(problem, state, steps=STEPS, iterations=ITERATIONS):
        state = later
    return problem.spread.colour(state.point)
