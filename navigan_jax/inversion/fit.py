"""The whole inversion of one photograph: its code, then the weights.

The code is found by the standard projector (`adam`), or by `coarse` Gauss-Newton steps and then
quasi-Newton steps on the metric. A run is a Python generator of states, which the caller can show,
save and resume. A state holds everything on which the rest of the run depends.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Images, Key, Params
from navigan_jax.generators.base import Generator
from navigan_jax.inversion import adam, coarse, codes, objective, quasi_newton, tuning
from navigan_jax.inversion.objective import Problem
from navigan_jax.inversion.trust_region import Solver
from navigan_jax.perceptual.base import Distance


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a photograph is inverted.

    steps: of adam, or evaluations of the quasi-Newton steps. fits_noise: whether noise maps are
    fitted with the code; only adam does that.
    """

    steps: int
    tune: tuning.Settings
    fits_noise: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """step: of all stages. found: of the code. tuned: of the weights, None before that stage."""

    step: int
    found: adam.State | quasi_newton.State
    tuned: tuning.State | None
    is_done: bool = False

    @property
    def value(self) -> float:
        """The latest distance."""
        return float(self.found.value if self.tuned is None else self.tuned.value)

    def to_arrays(self) -> dict[str, Any]:
        """Returns the state as a nested mapping of arrays."""
        arrays: dict[str, Any] = {"step": jnp.asarray(self.step), "found": _leaves(self.found)}
        return arrays if self.tuned is None else {**arrays, "tuned": _leaves(self.tuned)}


def total_steps(settings: Settings) -> int:
    """Returns the number of steps of both stages."""
    return settings.steps + settings.tune.steps


def run(
    problem: Problem,
    settings: Settings,
    code: Array,
    key: Key,
    solver: Solver | None,
    saved: Mapping[str, Any] | None = None,
) -> Iterator[State]:
    """Yields the state after each step.

    code: [1, ...], where the search begins. solver: of `coarse`, and then quasi-Newton steps; None:
    adam. saved: what `State.to_arrays` gave in an earlier run with the same arguments.
    """
    keys = jax.random.split(key, 4)
    near = code if saved is not None or solver is None else coarse.fit(solver, problem, code)
    found: Any
    if solver is None:
        maps = fitted_maps(problem, settings)
        found = adam.begin(near, adam.draw_noise(maps, keys[0]))
    else:
        found = quasi_newton.begin(problem, near)
    step = 0
    if saved is not None:
        step, found = int(saved["step"]), _restore(saved["found"], found)
    if saved is None or "tuned" not in saved:
        if isinstance(found, adam.State):
            stages: Iterator[Any] = adam.run(
                problem, adam.Schedule(settings.steps), found, keys[2], step
            )
        else:
            stages = quasi_newton.run(problem, settings.steps, found)
        for later in stages:
            found = later
            counted = isinstance(found, quasi_newton.State)
            step = int(found.evaluations) if counted else step + 1
            yield State(step, found, None)
        step = settings.steps
    if not settings.tune.steps:
        yield State(step, found, None, is_done=True)
        return
    tuned = tuning.begin(problem.generator, problem.params, settings.tune.rank, keys[1])
    if saved is not None and "tuned" in saved:
        tuned = _restore(saved["tuned"], tuned)
    latent = latent_of(problem, found.code)
    for better in tuning.run(
        problem, latent, found.noise, settings.tune, tuned, keys[3], step - settings.steps
    ):
        tuned, step = better, step + 1
        if float(tuned.value) <= settings.tune.until:
            break
        yield State(step, found, tuned)
    yield State(total_steps(settings), found, tuned, is_done=True)


def fitted_maps(problem: Problem, settings: Settings) -> dict[str, Array]:
    """Returns the noise maps that are fitted, by path."""
    if not settings.fits_noise:
        return {}
    return objective.noise_maps(problem.generator, problem.params)


def latent_of(problem: Problem, code: Array) -> Array:
    """Returns the input of `synthesize` for a code."""
    return codes.to_latent(
        problem.params, code, problem.rest, generator=problem.generator, space=problem.space
    )


def changes_of(problem: Problem, state: State) -> dict[str, Array]:
    """Returns Δ of a photograph: changes of its noise maps and of the weights, by path."""
    maps = objective.noise_maps(problem.generator, problem.params)
    changes = {path: fitted - maps[path] for path, fitted in state.found.noise.items()}
    if state.tuned is not None:
        changes |= tuning.change_of(problem.params, state.tuned.factors)
    return changes


def _leaves(tree: Any) -> dict[str, Array]:
    return {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(tree))}


def _restore(saved: Mapping[str, Array], like: Any) -> Any:
    leaves = [jnp.asarray(saved[str(number)]) for number in range(len(saved))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def find(
    generator: Generator,
    params: Params,
    metric: Distance,
    image: Images,
    *,
    space: str = "w_plus",
    steps: int = 200,
    usual: float = 0.002,
    seed: int = 0,
) -> Array:
    """Returns the latent [1, ...] for `synthesize` whose image is most like a photograph.

    image: [height, width, channels] in [-1, 1], of the generator's size. space: "w", "w_plus" or
    "z". steps: images that are compared by the metric. usual: weight that keeps the latent near
    those of samples. For many photographs, share `codes.measure_spread` and `coarse.make_solver`
    and call `run`.
    Raises: InputError if the generator has no such space.
    """
    codes.require_space(generator, space)
    key = jax.random.key(seed)
    spread = codes.measure_spread(generator, params, space, jax.random.fold_in(key, 0))
    z = generator.sample_latents(jax.random.fold_in(key, 1), 1)
    problem = objective.make_problem(
        generator,
        params,
        metric,
        spread,
        jnp.asarray(image)[None],
        space=space,
        rest=z[:, generator.space.movable :] if space == "z" else jnp.zeros((1, 0)),
        usual=usual,
    )
    code = codes.mean_code(spread, codes.code_shape(generator, space))
    settings = Settings(steps, tuning.Settings(steps=0))
    *_, last = run(problem, settings, code, jax.random.fold_in(key, 2), coarse.make_solver())
    return latent_of(problem, last.found.code)
