"""Inversion on cars: the standard projector against ours, on scenes that the network never saw.

  python -m tools.convert_weights lpips --net vgg --out lpips.safetensors
  python -m benchmarks.inversion --lpips lpips.safetensors                (two hours)
  python -m benchmarks.inversion --lpips lpips.safetensors --scenes 4     (15 minutes)

Both sides compare images by LPIPS (VGG) at 64 px, in w+ and without noise maps. The standard
projector takes 1000 steps; ours takes a sixth of them after its coarse steps. "kept" has the weight
that keeps codes usual, as the task has by default; "tuned" then tunes the weights. Times are of the
processor, without compiling. The first ratio is that of times, the second that of LPIPS, standard
to ours. "unusual" is the mean of u², the squared distance
of codes from the mean in units of samples: 1 for a sample.

Editability: from the code of one scene, the latent move that stands for another hue of the body, or
another wheelbase, is added; the image is compared with the rendered truth. The move is the
difference of two mapped latents, so that a code in the space of samples follows it best.
"""

if not __package__:
    import as_module  # noqa: F401

import dataclasses
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from benchmarks.cars import scene
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import read_generator
from navigan_jax.inversion import coarse, codes, fit, likeness, objective, tuning
from navigan_jax.inversion.objective import Problem
from navigan_jax.perceptual.files import read_perceptual
from navigan_jax.progress import Progress

STANDARD, OURS = 1000, 167
TUNED = 200
USUAL = 0.002  # the default of the task
_FACTORS = {"body hue": 0.25, "wheelbase": 0.5}  # shares of their ranges


class Result(NamedTuple):
    """LPIPS, mean square error, unusualness, and seconds of the processor; then of edits."""

    lpips: float
    mse: float
    unusual: float
    seconds: float
    edited: tuple[float, ...]


def main() -> None:
    """Prints a table and ratios."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--lpips", type=pathlib.Path, required=True)
    parser.add_argument("--scenes", type=int, default=32)
    options = parser.parse_args()
    common.say_where()
    generator, params = read_generator("cars")
    params = params_lib.to_device(params)
    metric = read_perceptual(options.lpips)
    spread = codes.measure_spread(generator, params, "w_plus", jax.random.key(123))
    z = jax.random.normal(jax.random.key(77), (options.scenes, generator.space.z_dim))
    factors = scene.draw(jax.random.key(78), options.scenes)
    solver = coarse.make_solver()
    runs = {
        "standard": (None, fit.Settings(STANDARD, tuning.Settings(0)), 0.0),
        "ours": (solver, fit.Settings(OURS, tuning.Settings(0)), 0.0),
        "ours, kept": (solver, fit.Settings(OURS, tuning.Settings(0)), USUAL),
        "ours, tuned": (solver, fit.Settings(OURS, tuning.Settings(TUNED, until=0.0)), USUAL),
    }
    found: dict[str, list[Result]] = {name: [] for name in runs}
    with Progress("scenes", options.scenes + 1, unit="scenes", is_main=True) as progress:
        for number in range(-1, options.scenes):  # the first only compiles
            row = factors[max(number, 0)]
            problem = objective.make_problem(
                generator,
                params,
                metric,
                spread,
                scene.render(row[None]),
                space="w_plus",
                rest=jnp.zeros((1, 0)),
                usual=0.0,
            )
            for name, (using, settings, usual) in runs.items():
                short = fit.Settings(3, tuning.Settings(min(3, settings.tune.steps), until=0.0))
                asked = dataclasses.replace(problem, usual=jnp.float32(usual))
                result = measure(asked, using, short if number < 0 else settings, row, z)
                if number >= 0:
                    found[name].append(result)
            progress.advance()
    report(found)


def measure(
    problem: Problem, solver: object, settings: fit.Settings, factors: Array, z: Array
) -> Result:
    """Returns the result of one scene."""
    watch = common.Stopwatch()
    generator = problem.generator
    code = codes.mean_code(problem.spread, codes.code_shape(generator, "w_plus"))
    for state in fit.run(problem, settings, code, jax.random.key(0), solver):  # type: ignore[arg-type]
        last = state
    jax.block_until_ready(last.found.code)
    seconds = float(watch.read()[1])
    changes = fit.changes_of(problem, last)
    params = apply_edit(problem.params, Edit(changes), 1.0)
    image = _synthesise(params, last.found.code, generator)
    lpips = float(_distance(problem, image))
    u = problem.spread.whiten(last.found.code)
    edited = []
    for name, share in _FACTORS.items():
        move, truth = _move(problem, factors, z, name, share)
        moved = _synthesise(params, last.found.code + move, generator)
        features = objective.make_problem(
            generator,
            problem.params,
            problem.metric,
            problem.spread,
            truth,
            space="w_plus",
            rest=problem.rest,
            usual=0.0,
        )
        edited.append(float(_distance(features, moved)))
    mse = likeness.mean_square(image, problem.image)
    return Result(lpips, mse, float(jnp.mean(u**2)), seconds, tuple(edited))


def _move(
    problem: Problem, factors: Array, z: Array, name: str, share: float
) -> tuple[Array, Array]:
    """Returns the move of w_plus for a change of a factor, and the rendered truth.

    The move is the mean difference of mapped latents over the rows of z, whose coordinate of that
    factor goes from its share in the scene to the other.
    """
    at = scene.NAMES.index(name)
    factor = scene.FACTORS[at]
    column = [each.name for each in scene.TRAINED].index(name)
    now = float((factors[at] - factor.low) / (factor.high - factor.low))
    then = (
        (now + share) % 1 if factor.is_circular else (now + share if now < share else now - share)
    )
    ends = []
    for value in (now, then):
        level = jax.scipy.stats.norm.ppf(jnp.clip(value, 0.02, 0.98))
        unit = z / jnp.sqrt(jnp.mean(z**2, axis=1, keepdims=True))
        ends.append(_map(problem.params, unit.at[:, column].set(level), problem.generator))
    truth = factors.at[at].set(factor.low + then * (factor.high - factor.low))
    return jnp.mean(ends[1] - ends[0], axis=0, keepdims=True), scene.render(truth[None])


_distance = jax.jit(objective.distance)
_synthesise = jax.jit(
    lambda params, latent, generator: generator.synthesize(params, latent), static_argnums=2
)


def _map(params: object, z: Array, generator: Generator) -> Array:
    return codes.code_of(params, z, generator=generator, space="w_plus")  # type: ignore[arg-type]


def report(found: dict[str, list[Result]]) -> None:
    """Prints means over the scenes, and ratios."""
    names = " ".join(f"{name:>10}" for name in _FACTORS)
    print(f"{'':12} {'LPIPS':>8} {'MSE':>8} {'unusual':>8} {'seconds':>8}   LPIPS, edited: {names}")
    means = {}
    for name, results in found.items():
        means[name] = [float(np.mean([row[i] for row in results])) for i in range(4)]
        lpips, mse, unusual, seconds = means[name]
        edits = np.mean([row.edited for row in results], axis=0)
        told = " ".join(f"{value:10.4f}" for value in edits)
        print(f"{name:12} {lpips:8.5f} {mse:8.5f} {unusual:8.2f} {seconds:8.1f}   {'':14} {told}")
    common.ratio("inversion time", means["standard"][3] / means["ours"][3])
    common.ratio("inversion LPIPS", means["standard"][0] / means["ours"][0])
    common.ratio("tuned MSE", means["ours, kept"][1] / means["ours, tuned"][1])


if __name__ == "__main__":
    main()
