"""Training of directions with evaluations, checkpoints and reports: a part of `discover`.

A run ends after its steps, once its accuracy no longer grows, or when its time is over. The result
is the first checkpoint of the highest held-out accuracy. A step's metrics and pictures are written
before its checkpoint, so a resumed run repeats nothing and lacks nothing.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Images, Params
from navigan_jax.config import Config
from navigan_jax.discovery import loop, ranking, shift_scale
from navigan_jax.discovery.checkpointing import Checkpoints
from navigan_jax.discovery.matrix import DirectionMatrix
from navigan_jax.discovery.reconstructor import (
    Reconstructor,
    feature_bytes,
    init_reconstructor,
    make_reconstructor,
    predict,
)
from navigan_jax.discovery.reconstructor_files import read_start, start_with
from navigan_jax.discovery.sampling import sample_shifts
from navigan_jax.discovery.step import Recipe, TrainState, init_state, make_step, render_pairs
from navigan_jax.editing.plausibility import Plausibility
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.progress import MetricWriter, NullMetricWriter, Progress, open_metrics
from navigan_jax.showcase.base import to_rgb
from navigan_jax.tasks.inputs import Problem
from navigan_jax.tasks.settings import wrong_number
from navigan_jax.tasks.workdirs import say

CHECKPOINTS = "checkpoints"

# Numbers folded into the run's key, one per purpose; 2 is taken by the calibration.
DRAWN, MATRIX, RECONSTRUCTOR, TRAIN, PLAUSIBLE = range(10, 15)
_FAR = 1000  # largest scale in units of the first shift tried: a hundred times the weights' norm
_COLUMNS = 5  # shifts from −T to T in a TensorBoard picture


def key_for(config: Config, purpose: int) -> jax.Array:
    """Returns the run's key for one purpose."""
    return jax.random.fold_in(jax.random.key(config.seed), purpose)


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """Everything that training needs. target: as in `render_pairs`."""

    problem: Problem
    target: tuple[EditableLayer, ...] | str
    matrix: DirectionMatrix
    reconstructor: Reconstructor
    recipe: Recipe


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The best state of a run: parameters of the matrix, variables of the reconstructor, steps."""

    parameters: Any
    variables: Any
    steps: int


def make_recipe(
    config: Config,
    problem: Problem,
    target: tuple[EditableLayer, ...] | str,
    matrix: DirectionMatrix,
    plausible: Plausibility,
) -> Recipe:
    """Returns the hyperparameters of a step; finds the shift scale, or checks the config's.

    plausible: out-of-distribution scores of the generator.
    Raises: InputError if the scale destroys the images, or no scale is plausible.
    """
    generator, params = problem.generator, problem.params
    if target == "z" and generator.mapping_stages and not config.shift.scale:
        raise InputError(
            "config.shift.scale: expected a number above 0 for z, as the mapping of this generator "
            "normalises z and no shift is too large; got 0; set --config.shift.scale=6, as "
            "GANLatentDiscovery does, or --config.subspace.latent=w"
        )
    samples = max(32, 2 * matrix.count)
    z = generator.sample_latents(key_for(config, PLAUSIBLE), samples)
    parameters = matrix.init(key_for(config, MATRIX))

    @jax.jit
    def images_of(params: Params, matrix: DirectionMatrix, indices: Any, shifts: Any) -> Images:
        def some(z: Any, indices: Any, shifts: Any) -> Images:
            changes = matrix.changes(parameters, indices, shifts)
            return render_pairs(generator, params, target, changes, z)[1]

        images = jax.lax.map(lambda part: some(*part), (z_parts, indices, shifts))
        return images.reshape(samples, *generator.image_shape)

    size = math.gcd(samples, config.microbatch)
    z_parts = z.reshape(samples // size, size, -1)

    def render(indices: Any, shifts: Any) -> Images:
        parts = (samples // size, size)
        return images_of(params, matrix, indices.reshape(parts), shifts.reshape(parts))

    along = shift_scale.along_directions(render, directions=matrix.count, samples=samples)
    judge = shift_scale.make_judge(plausible, along(0.0))
    weights = [params_lib.get(params, layer.path) for layer in problem.layers]
    first = 0.1 * math.sqrt(sum(float(jnp.sum(weight**2)) for weight in weights)) or 1.0
    scale, least, weight = config.shift.scale, config.shift.least, config.loss.shift_weight
    if scale:
        judged = judge(along(scale))
        # The paper's scales are about twice the norm of the weights. All images there may be out of
        # distribution, and that is intended. A change a hundred times as large destroys the layer.
        if judged.flat + judged.broken > 0.5 or scale > _FAR * first:
            shift_scale.require_images(along, judge, scale=scale, first=first)
        elif not judged.plausible:
            say(
                f"note: at ±{scale:.4g}, config.shift.scale, all images are out of the effective "
                "range; --config.shift.scale=0 finds the largest shift within it"
            )
    else:
        scale = shift_scale.largest_plausible_shift(along, judge, first=first)
        least, weight = least * scale, weight / scale
        judged = judge(along(scale))
    say(
        f"shift scale {scale:.4g}, least shift {least:.4g}, weight {weight:.4g}; "
        f"out-of-distribution score at ±{scale:.4g}: {judged.score:.3g} (bound 1)"
    )
    if not least < scale:
        raise wrong_number(config, "shift.least", f"less than the shift scale, {scale:g}")
    per_device = config.batch // jax.device_count()
    return Recipe(
        batch=config.batch,
        directions=config.directions,
        shift_scale=scale,
        min_shift=least,
        distribution=config.shift.distribution,
        label_weight=config.loss.label_weight,
        shift_weight=weight,
        directions_rate=config.optimizer.directions_rate,
        reconstructor_rate=config.optimizer.reconstructor_rate,
        microbatch=config.microbatch if config.microbatch < per_device else None,
    )


def make_measure(setup: Setup, *, rounds: int) -> Callable[[Any, Any, jax.Array], ranking.Table]:
    """Returns (matrix parameters, reconstructor variables, key) -> table of all directions.

    rounds: samples per direction.
    """
    generator, recipe = setup.problem.generator, setup.recipe

    def recognise(arguments: Any, key: Any, indices: Any) -> tuple[Any, Any, Any]:
        params, matrix, parameters, variables = arguments
        key_z, key_shift = jax.random.split(key)
        _, shifts = sample_shifts(
            key_shift,
            len(indices),
            recipe.directions,
            shift_scale=recipe.shift_scale,
            min_shift=recipe.min_shift,
            distribution=recipe.distribution,
        )
        z = generator.sample_latents(key_z, len(indices))
        changes = matrix.changes(parameters, indices, shifts)
        images = render_pairs(generator, params, setup.target, changes, z)
        (logits, predicted), _ = predict(setup.reconstructor, variables, *images, train=False)
        return jnp.argmax(logits, axis=1), predicted, shifts

    measure = ranking.make_measure(
        recognise,
        lambda arguments: arguments[1].cosines(arguments[2]),
        directions=recipe.directions,
        batch=recipe.microbatch or recipe.batch,
        rounds=rounds,
    )
    return lambda parameters, variables, key: measure(
        (setup.problem.params, setup.matrix, parameters, variables), key
    )


def train(config: Config, workdir: pathlib.Path, setup: Setup, first: Any) -> Trained:
    """Trains or resumes training; returns the best state.

    first: initial variables of the reconstructor.
    Raises: InputError if the loss is not finite, or the disk is full.
    """
    matrix, is_main = setup.matrix, devices.is_main_process()
    parameters = matrix.init(key_for(config, MATRIX))
    state = init_state(key_for(config, TRAIN), setup.recipe, parameters, first)
    with Checkpoints(workdir / CHECKPOINTS, keep=config.keep) as saved:
        record: dict[str, Any] = {"history": [], "hours": 0.0}
        done = 0
        if saved.steps:
            done = saved.steps[-1]
            state, record = saved.restore(done, state)
            say(f"resumed after {done} steps")
        with (
            open_metrics(workdir, first_step=done + 1 if done else 0, is_main=is_main) as metrics,
            Progress("training", config.steps, unit="steps", is_main=is_main, done=done) as bar,
        ):
            session = _Session(config, setup, saved, metrics, bar, record)
            session.run(state, done)
        saved.wait()
        devices.wait_for_all("trained")
        if not devices.is_main_process():
            saved.look_again()
        if session.stop:
            say(f"stopped: {session.stop}")
        best = saved.best_step()
        state, record = saved.restore(best, state)
        say(f"best held-out accuracy {record['accuracy']:.3f}, after {best} steps")
    return Trained(state.directions, state.reconstructor, best)


class _Session:
    """One process's part of a run: reports, evaluations and checkpoints after each window of steps.

    record: record of the checkpoint from which the run resumes. stop: why the run is over, or "".
    The reason follows from the config, so a run that was over goes on once the config allows it.
    """

    def __init__(
        self,
        config: Config,
        setup: Setup,
        saved: Checkpoints,
        metrics: MetricWriter | NullMetricWriter,
        bar: Progress,
        record: dict[str, Any],
    ) -> None:
        self._config, self._setup, self._saved = config, setup, saved
        self._metrics, self._bar = metrics, bar
        self._history: list[float] = list(record["history"])
        self._hours_before, self._began = float(record["hours"]), time.monotonic()
        self._measure = make_measure(setup, rounds=config.held_out.rounds)
        self._key = jax.random.fold_in(jax.random.key(config.held_out.seed), 1)
        self.stop = _why_over(config, self._history, self._hours_before)

    def run(self, state: TrainState, done: int) -> None:
        """Trains from step `done` on, unless the run is over already."""
        config, setup = self._config, self._setup
        if self._is_over(done):
            return
        step = make_step(
            setup.problem.generator,
            setup.problem.params,
            setup.target,
            setup.matrix,
            setup.reconstructor,
            setup.recipe,
        )
        for window in loop.windows(
            step, devices.replicate(state), done=done, total=config.steps, every=config.log_steps
        ):
            numbers = self._look_at(window)
            shown = {name: numbers[name] for name in ("loss", "accuracy", "shift_error")}
            self._bar.advance(window.step - done, **shown)
            done = window.step
            if self._is_over(done):
                return

    def _is_over(self, done: int) -> bool:
        return bool(self.stop) or done >= self._config.steps

    def _look_at(self, window: loop.Window) -> dict[str, float]:
        """Reports a window and returns its metrics; evaluates and saves every `save_steps`."""
        config = self._config
        if not window.is_finite:
            raise self._diverged(window.step, "a loss of NaN or infinity")
        numbers = {
            **window.metrics,
            "directions_rate": config.optimizer.directions_rate,
            "reconstructor_rate": config.optimizer.reconstructor_rate,
        }
        passed = (time.monotonic() - self._began) / 3600
        hours = self._hours_before + devices.value_of_main_process(passed)
        self.stop = _why_over(config, [], hours)
        is_saved = self._is_over(window.step) or window.step % config.save_steps == 0
        if is_saved:
            state = devices.first_replica(window.state)
            numbers |= self._evaluate(window.step, state, hours)
        if devices.is_main_process() and window.step % config.image_steps == 0:
            parameters = devices.first_replica(window.state.directions)
            picture = _picture(self._setup, parameters, config.show.animated, config.show.seed)
            self._metrics.write_image(window.step, "directions", picture)
        self._metrics.write(window.step, numbers)
        if is_saved and devices.is_main_process():
            record = {"accuracy": self._history[-1], "history": self._history, "hours": hours}
            self._saved.save(window.step, state, record)
        return numbers

    def _evaluate(self, step: int, state: TrainState, hours: float) -> dict[str, float]:
        """Returns the held-out metrics; records the accuracy, and why the run is over, if it is."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            raise self._diverged(step, "NaN or infinity in the trained parameters")
        table = self._measure(state.directions, state.reconstructor, self._key)
        accuracy = float(table.accuracy.mean())
        if not np.isfinite(table.shift_error).all():
            raise self._diverged(step, "NaN or infinity from the reconstructor")
        self._history.append(accuracy)
        self.stop = _why_over(self._config, self._history, hours)
        return {
            "held_out_accuracy": accuracy,
            "held_out_shift_error": float(table.shift_error.mean()),
        }

    def _diverged(self, step: int, got: str) -> InputError:
        steps = self._saved.steps
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "no checkpoint was made"
        return InputError(
            f"training: expected finite numbers; got {got} by step {step}; {kept}; train in "
            "another --workdir with a smaller --config.shift.scale, --config.loss.shift_weight, "
            "--config.optimizer.directions_rate or --config.optimizer.reconstructor_rate"
        )


def _why_over(config: Config, history: list[float], hours: float) -> str:
    """Returns why a run is over before its last step, or "" if it is not."""
    if config.max_hours and hours >= config.max_hours:
        return f"{hours:.2f} hours passed, config.max_hours"
    if loop.has_stalled(history, patience=config.patience, least_gain=config.least_gain):
        return f"no gain in {config.patience} evaluations, config.patience"
    return ""


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether the workdir has checkpoints, also of a finished training."""
    return _last_record(workdir) is not None


def goes_on(config: Config, workdir: pathlib.Path) -> bool:
    """Whether the workdir has checkpoints of a training that this config continues."""
    last = _last_record(workdir)
    if last is None:
        return False
    step, record = last
    return step < config.steps and not _why_over(config, record["history"], record["hours"])


def _last_record(workdir: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
    folder = workdir / CHECKPOINTS
    if not folder.is_dir():
        return None
    with Checkpoints(folder, keep=1) as saved:
        return (saved.steps[-1], saved.record(saved.steps[-1])) if saved.steps else None


def read_reconstructor(config: Config) -> dict[str, Any] | None:
    """Returns the weights that the reconstructor starts with, or None for a random start.

    Raises: InputError if the network takes no weights, or if the file is missing, damaged or of
      another kind.
    """
    path, name = config.reconstructor.weights, config.reconstructor.name
    if path is None:
        return None
    if name != "resnet18":
        raise InputError(
            f"config.reconstructor.weights: expected nothing, as {name} always starts at random; "
            f"got {path!r}; leave the key out, or set --config.reconstructor.name=resnet18"
        )
    return read_start(path)


def network_of(config: Config) -> Reconstructor:
    """Returns the reconstructor without its variables."""
    return make_reconstructor(
        config.reconstructor.name,
        directions=config.directions,
        side=config.reconstructor.side or None,
        synchronised=config.reconstructor.synchronised,
    )


def require_room(config: Config, generator: Generator) -> None:
    """Checks that the reconstructor's features of a batch fit in memory, before any work.

    Batch normalisation needs the whole batch of a device at once, whatever the microbatch. A step
    needs 1.4 to 2.1 times these features on a CPU; it is checked once it is compiled.
    Raises: InputError if they do not fit, or if the images are too small.
    """
    network = network_of(config)
    pairs = -(-config.batch // jax.device_count())
    lacking = devices.describe_shortage(pairs * feature_bytes(network, generator.image_shape))
    if lacking:
        side = network.side or min(generator.image_shape[:2])
        raise InputError(
            f"config.reconstructor.side: expected the features of {config.reconstructor.name} for "
            f"{pairs} pairs of images to fit in memory; got at least {lacking}, at {side} pixels; "
            "lower it with --config.reconstructor.side=N, or lower the batch with --config.batch=N"
        )


def first_variables(
    config: Config,
    generator: Generator,
    reconstructor: Reconstructor,
    start: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns initial variables of the reconstructor: fresh ones, or `start` with fresh heads.

    Raises: InputError if `start` is of another network.
    """
    key = key_for(config, RECONSTRUCTOR)
    variables = init_reconstructor(key, reconstructor, generator.image_shape)
    if start is None:
        return variables
    return start_with(variables, start, config.reconstructor.weights)


def _picture(setup: Setup, parameters: Any, directions: int, seed: int) -> np.ndarray:
    """Returns a picture of one sample along the first directions, a row each; bytes HWC."""
    rows, generator = min(directions, setup.matrix.count), setup.problem.generator
    z = jnp.repeat(generator.sample_latents(jax.random.key(seed), 1), rows * _COLUMNS, axis=0)
    indices = jnp.repeat(jnp.arange(rows), _COLUMNS)
    shifts = jnp.tile(jnp.linspace(-1, 1, _COLUMNS) * setup.recipe.shift_scale, rows)
    changes = setup.matrix.changes(parameters, indices, shifts)
    images = render_pairs(generator, setup.problem.params, setup.target, changes, z)[1]
    height, width, _ = generator.image_shape
    tiles = to_rgb(np.asarray(images)).reshape(rows, _COLUMNS, height, width, 3)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, _COLUMNS * width, 3)
