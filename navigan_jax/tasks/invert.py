"""The task `invert`: finds photographs in a generator, and shows them edited."""

import csv
import dataclasses
import functools
import io
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import checkpoints, devices
from navigan_jax import inverted as inverted_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Params
from navigan_jax.config import Config
from navigan_jax.directions import Edit
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.inversion import coarse, codes, fit, likeness, objective, placing, tuning
from navigan_jax.inversion.objective import Problem
from navigan_jax.inverted import Inverted
from navigan_jax.perceptual.base import Distance, squared_norms
from navigan_jax.progress import Progress
from navigan_jax.showcase import comparison, pictures
from navigan_jax.tasks import choosing, inputs, photographs, showing
from navigan_jax.tasks.choosing import Choice
from navigan_jax.tasks.photographs import Target
from navigan_jax.tasks.settings import NOT_NEGATIVE, POSITIVE, SEED, Limits, Settings
from navigan_jax.tasks.workdirs import claim, say, say_written

METHODS = ("gauss_newton", "adam")
_OWN = Settings(
    {
        "task": str,
        "seed": int,
        "compilation_cache": bool,
        "distributed": bool,
        "generator": str,
        "images": str,
        "place.method": str,
        "place.box": tuple[float, ...],
        "place.landmarks": str | None,
        "place.face": int,
        "space": str,
        "noise": bool,
        "start": str,
        "start_samples": int,
        "method": str,
        "steps": int,
        "usual": float,
        "tune.steps": int,
        "tune.rate": float,
        "tune.until": float,
        "tune.locality": float,
        "tune.rank": int,
        "directions": str | None,
        "any_weights": bool,
        "show.directions": int,
        "paste.feather": float,
        "save_minutes": float,
    },
    {
        "seed": SEED,
        "place.face": Limits(least=-1, most=1000),
        "start_samples": Limits(most=10**5, is_open=True),
        "steps": Limits(most=10**6),
        "usual": NOT_NEGATIVE,
        "tune.steps": Limits(most=10**6),
        "tune.rate": POSITIVE,
        "tune.until": NOT_NEGATIVE,
        "tune.locality": NOT_NEGATIVE,
        "tune.rank": Limits(most=4096),
        "show.directions": Limits(most=8),
        "paste.feather": Limits(most=0.5),
        "save_minutes": NOT_NEGATIVE,
    },
    {"place.method": photographs.PLACES, "space": codes.SPACES, "method": METHODS},
)
SETTINGS = inputs.SYNTHESIS | inputs.METRIC | _OWN

_RESULT, _STATE, _PARTS = "inverted.safetensors", "state.safetensors", "photographs"
_FREE = (
    "images",
    "directions",
    "any_weights",
    "show.",
    "paste.",
    "save_minutes",
    "compilation_cache",
    "distributed",
)
_AT_ONCE = 8  # images of samples


class _Run(NamedTuple):
    """What all photographs share."""

    config: Config
    generator: Generator
    params: Params
    metric: Distance
    spread: codes.Spread
    solver: Any
    workdir: pathlib.Path
    provenance: Mapping[str, str]


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes inverted.safetensors, comparison.png, inverted.csv and pictures to the workdir."""
    SETTINGS.check(config)
    photographs.check(config)
    generator, params, _ = inputs.read_set_generator(config)
    codes.require_space(generator, config.space)
    _require_noise(config, generator, params)
    _require_class(config, generator)
    metric = inputs.make_metric(config)
    images = jax.ShapeDtypeStruct((1, *generator.image_shape), jnp.float32)
    jax.eval_shape(metric.features, jax.eval_shape(objective.average_down, images))
    choice = None if config.directions is None else choosing.read_choice(_as_choice(config))
    targets = photographs.read_targets(config, generator)
    starts = _given_starts(config, generator, len(targets))
    settled = inputs.fill_defaults(config)
    digests = {"generator": params_lib.digest(params)}
    if config.metric.weights is not None:
        digests["metric"] = inputs.digest_metric(config)
    if starts is not None:
        digests["start"] = params_lib.digest({"latents": starts})
    with checkpoints.locked(checkpoints.make_folder(workdir)):
        claim(workdir, settled, digests, results=(_RESULT, _PARTS, _STATE), free_keys=_FREE)
        shared = _share(config, generator, params, metric, workdir, digests["generator"])
        parts = _invert_all(shared, targets, starts)
        whole = inverted_lib.join(parts)
        inverted_lib.write_inverted(workdir / _RESULT, whole)
        written = {_RESULT: "the photographs in this generator: latents and changes of weights"}
        written |= _show(shared, targets, whole, choice)
        checkpoints.write_text(workdir / "inverted.csv", _to_csv(targets, whole))
    for line in _table(targets, whole):
        say(line)
    written["inverted.csv"] = "how like each photograph its image is"
    say_written(workdir, written)


def _require_noise(config: Config, generator: Generator, params: Params) -> None:
    if config.noise and config.method != "adam":
        raise InputError(
            f"config.noise: expected False with config.method={config.method}; got True; leave "
            "the noise maps as they are, or set --config.method=adam"
        )
    if config.noise and not objective.noise_maps(generator, params):
        raise InputError(
            f"config.noise: expected a generator with constant noise; got a "
            f"{generator.architecture} without; set --config.noise=False"
        )


def _as_choice(config: Config) -> Config:
    """Returns the config with the keys that `read_choice` reads."""
    return type(config)({**config.to_dict(), "choose": "all"})


def _given_starts(config: Config, generator: Generator, count: int) -> np.ndarray | None:
    """Returns the latents of a file as starts, one for each photograph or one for all.

    Raises: InputError if the file does not hold such latents.
    """
    if config.start in ("mean", "best"):
        return None
    latents = inputs.read_given_latents(config.start, generator)
    say(latents.told)
    wanted = "z" if config.space == "z" else "w_plus"
    if latents.space != wanted or len(latents.values) not in (1, count):
        raise InputError(
            f"config.start: expected 1 or {count} latents in {wanted} for {count} photographs; got "
            f"{len(latents.values)} in {latents.space}; give others, or set --config.start=mean"
        )
    return np.broadcast_to(latents.values, (count, *latents.values.shape[1:]))


def _share(
    config: Config,
    generator: Generator,
    params: Params,
    metric: Distance,
    workdir: pathlib.Path,
    digest: str,
) -> _Run:
    key = jax.random.fold_in(jax.random.key(config.seed), 20)
    params = params_lib.to_device(params)
    provenance = {
        "architecture": generator.architecture,
        "digest": digest,
        "method": f"{config.method}, {config.space}" + (", tuned" if config.tune.steps else ""),
        "metric": config.metric.name,
        "seed": str(config.seed),
    }
    spread = codes.measure_spread(generator, params, config.space, key)
    solver = coarse.make_solver() if config.method == "gauss_newton" else None
    return _Run(config, generator, params, metric, spread, solver, workdir, provenance)


def _settings(config: Config) -> fit.Settings:
    keys = config.tune
    tune = tuning.Settings(keys.steps, keys.rate, keys.until, keys.locality, keys.rank)
    return fit.Settings(config.steps, tune, config.noise)


def _invert_all(shared: _Run, targets: list[Target], starts: np.ndarray | None) -> list[Inverted]:
    """Returns the photographs, found now or read back."""
    config, settings = shared.config, _settings(shared.config)
    folder = shared.workdir / _PARTS
    paths = [folder / f"{target.key[:16]}.safetensors" for target in targets]
    each = fit.total_steps(settings)
    samples = _draw_samples(shared) if config.start == "best" else None
    parts = []
    with Progress(
        "photographs",
        each * len(targets),
        unit="steps",
        is_main=devices.is_main_process(),
        done=each * sum(path.exists() for path in paths),
    ) as progress:
        for number, (target, path) in enumerate(zip(targets, paths, strict=True)):
            if not path.exists():
                problem, code = _begin(shared, target, None if starts is None else starts[number])
                if samples is not None:
                    problem, code = _best(shared, problem, samples)
                part = _invert(shared, settings, target, problem, code, progress)
                inverted_lib.write_inverted(path, part)
                checkpoints.remove_state(shared.workdir / _STATE)
            digest = shared.provenance["digest"]
            found = inverted_lib.read_inverted(path, digest=digest)
            parts.append(dataclasses.replace(found, names=[target.photograph.name]))
    return parts


def _begin(shared: _Run, target: Target, start: np.ndarray | None) -> tuple[Problem, Array]:
    """Returns the problem of a photograph, and the code where the search begins.

    start: a latent that the user gave; None: the mean.
    """
    config, generator = shared.config, shared.generator
    shape = codes.code_shape(generator, config.space)
    code, rest = codes.mean_code(shared.spread, shape), _rest(shared)
    if start is not None and config.space == "z":
        movable = generator.space.movable
        code, rest = jnp.asarray(start[None, :movable]), jnp.asarray(start[None, movable:])
    elif start is not None:
        code = jnp.asarray(start[None] if config.space == "w_plus" else start.mean(axis=0)[None])
    problem = objective.make_problem(
        generator,
        shared.params,
        shared.metric,
        shared.spread,
        jnp.asarray(target.image[None], jnp.float32),
        space=config.space,
        rest=rest,
        usual=config.usual,
    )
    return problem, code


def _rest(shared: _Run) -> Array:
    """Returns what follows the movable entries of z: the class, which the search does not move."""
    if shared.config.space != "z":
        return jnp.zeros((1, 0))
    z = shared.generator.sample_latents(jax.random.key(0), 1)
    return z[:, shared.generator.space.movable :]


def _require_class(config: Config, generator: Generator) -> None:
    """Checks that the class is set, or that a sample or a latent brings one. Raises: InputError."""
    has_classes = generator.space.shape != (generator.space.movable,)
    is_open = config.synthesis.label in (None, "") and config.start == "mean"
    if config.space == "z" and has_classes and is_open:
        raise InputError(
            "config.synthesis.label: expected the class of the photographs, or a search for it; "
            "got nothing; set --config.synthesis.label=CLASS, or --config.start=best, which takes "
            "the class of the most similar sample"
        )


class _Samples(NamedTuple):
    """Samples with their images: codes, what follows them in z, and features."""

    codes: Array
    rest: Array
    features: list[Any]


def _draw_samples(shared: _Run) -> _Samples:
    config, generator = shared.config, shared.generator
    key = jax.random.fold_in(jax.random.key(config.seed), 22)
    z = generator.sample_latents(key, config.start_samples)

    @jax.jit
    def look(params: Params, metric: Distance, z: Array) -> Any:
        images = generator.synthesize(params, generator.map_latent(params, z))
        return metric.features(objective.average_down(images))

    parts = [z[i : i + _AT_ONCE] for i in range(0, len(z), _AT_ONCE)]
    features = [look(shared.params, shared.metric, part) for part in parts]
    found = codes.code_of(shared.params, z, generator=generator, space=config.space)
    movable = generator.space.movable
    rest = z[:, movable:] if config.space == "z" else jnp.zeros((len(z), 0))
    return _Samples(found, rest, features)


def _best(shared: _Run, problem: Problem, samples: _Samples) -> tuple[Problem, Array]:
    """Returns the problem and the code of the sample that is most like the photograph."""

    def apart(features: Any) -> np.ndarray:
        differences = jax.tree.map(lambda x, y: x - y, features, problem.features)
        return np.asarray(jnp.sum(squared_norms(differences), axis=0))

    best = int(np.argmin(np.concatenate([apart(part) for part in samples.features])))
    rest = samples.rest[best : best + 1]
    return dataclasses.replace(problem, rest=rest), samples.codes[best : best + 1]


def _invert(
    shared: _Run,
    settings: fit.Settings,
    target: Target,
    problem: Problem,
    code: Array,
    progress: Progress,
) -> Inverted:
    """Returns one photograph; goes on from the saved state if that is of this photograph."""
    config, path = shared.config, shared.workdir / _STATE
    key = jax.random.fold_in(jax.random.key(config.seed), 21)
    mark = np.frombuffer(bytes.fromhex(target.key), np.uint8)
    saved = checkpoints.read_state(path)
    if saved is not None and not np.array_equal(saved["photograph"], mark):
        saved = None
    spent = 0.0 if saved is None else float(saved["seconds"])
    begun = last = time.perf_counter()
    done = 0
    for state in fit.run(
        problem, settings, code, key, shared.solver, None if saved is None else saved["state"]
    ):
        shown = {"distance": state.value} if state.step % 10 == 0 or state.is_done else {}
        progress.advance(state.step - done, **shown)
        done, now = state.step, time.perf_counter()
        if now - last >= 60 * config.save_minutes and not state.is_done:
            last = now
            so_far = np.float64(spent + now - begun)
            kept = {"photograph": mark, "seconds": so_far, "state": state.to_arrays()}
            checkpoints.write_state(path, kept)
    seconds = spent + time.perf_counter() - begun
    return _measure(shared, target, problem, state, seconds)


def _measure(
    shared: _Run, target: Target, problem: Problem, state: fit.State, seconds: float
) -> Inverted:
    """Returns the photograph as a value, with how like its image is."""
    changes = fit.changes_of(problem, state)
    latent = fit.latent_of(problem, state.found.code)
    is_z = shared.config.space == "z"
    if is_z:
        latent = jnp.concatenate([state.found.code, problem.rest], axis=1)
    image = _image(shared.generator, shared.params, latent, Edit(changes))
    measures = {
        "distance": float(_distance(problem, image)),
        "mse": likeness.mean_square(problem.image, image),
        "psnr": likeness.psnr(problem.image, image),
        "ssim": likeness.ssim(problem.image, image),
        "seconds": seconds,
    }
    return Inverted(
        names=[target.photograph.name],
        sha256=[target.photograph.sha256],
        space="z" if is_z else "w_plus",
        latents=np.asarray(latent),
        changes={path: np.asarray(delta)[None] for path, delta in changes.items()},
        corners=target.place.corners[None],
        measures={name: np.array([value], np.float64) for name, value in measures.items()},
        provenance=shared.provenance,
    )


_distance = jax.jit(objective.distance)


@functools.partial(jax.jit, static_argnames="generator")
def _synthesise(params: Params, latent: Array, *, generator: Generator) -> Array:
    return generator.synthesize(params, generator.map_latent(params, latent))


def _image(generator: Generator, params: Params, latent: Array, edit: Edit) -> Array:
    """Returns the image [1, ...] of a latent [1, ...] with edited weights."""
    return _synthesise(apply_edit(params, edit, 1.0), latent, generator=generator)


def _show(
    shared: _Run, targets: list[Target], whole: Inverted, choice: Choice | None
) -> dict[str, str]:
    """Writes the pictures, and returns {name: description}."""
    config, workdir = shared.config, shared.workdir
    moves = _moves(config, choice)
    rows = []
    for number, target in enumerate(targets):
        latent, own = jnp.asarray(whole.latents[number : number + 1]), whole.edit(number)
        images = {
            title: np.asarray(_image(shared.generator, shared.params, latent, edit))[0]
            for title, edit in (
                ("reconstruction", own),
                *((title, combine([own, edit], [1.0, t])) for title, edit, t in moves),
            )
        }
        _write_pictures(config, workdir, number, target, images, whole)
        rows.append(comparison.Row(target.label, target.image, tuple(images.items())))
    comparison.write_comparison(workdir / "comparison.png", rows)
    written = {
        "comparison.png": "photograph, reconstruction and difference",
        "000_reconstruction.png": "the generator's image of the first photograph",
        "000_reconstruction_full.png": "the same, pasted back into the photograph",
    }
    if moves:
        written["comparison.png"] += ", and directions"
        written["000_edited_full.png"] = f"edited by {moves[0][0]} and pasted back"
    if whole.space == "w_plus":
        written["000_projected_w.npz"] = "its latent as the official projector writes it"
    return written


def _moves(config: Config, choice: Choice | None) -> list[tuple[str, Edit, float]]:
    """Returns (title, direction, shift) of the directions that are shown, both sides of each."""
    if choice is None:
        return []
    indices = choice.indices[: config.show.directions]
    ends = showing.find_ends(choice.directions, indices, 0.0)
    return [
        (f"{sign} {choice.title(index)}", choice.directions.edit(index), t)
        for index, (low, high) in zip(indices, ends, strict=True)
        for sign, t in (("+", float(high)), ("\N{MINUS SIGN}", -float(low)))
    ]


def _write_pictures(
    config: Config,
    workdir: pathlib.Path,
    number: int,
    target: Target,
    images: Mapping[str, np.ndarray],
    whole: Inverted,
) -> None:
    named = dict(zip(("reconstruction", "edited"), images.values(), strict=False))
    pixels = target.photograph.pixels
    for name, image in named.items():
        full = placing.paste_back(
            pixels, target.place, photographs.to_rgb(image), feather=config.paste.feather
        )
        for suffix, picture in (("", image), ("_full", full)):
            pictures.write_png(workdir / f"{number:03}_{name}{suffix}.png", picture)
    if whole.space == "w_plus":
        with checkpoints.atomic_output(workdir / f"{number:03}_projected_w.npz") as temporary:
            np.savez(temporary, w=whole.latents[number : number + 1])


def _to_csv(targets: list[Target], whole: Inverted) -> str:
    """Returns the table as text, a line for each photograph."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["photograph", *whole.measures])
    for number, target in enumerate(targets):
        values = [f"{rows[number]:.6g}" for rows in whole.measures.values()]
        writer.writerow([target.label, *values])
    return buffer.getvalue()


def _table(targets: list[Target], whole: Inverted) -> list[str]:
    """Returns the table in lines for a terminal."""
    metric = whole.provenance["metric"]
    width = max(len("photograph"), *(len(target.label) for target in targets))
    head = f"{'photograph':{width}}  {metric:>8}  {'MSE':>8}  {'PSNR':>6}  {'SSIM':>6}  seconds"
    lines = [head]
    for number, target in enumerate(targets):
        at = {name: float(rows[number]) for name, rows in whole.measures.items()}
        lines.append(
            f"{target.label:{width}}  {at['distance']:8.4f}  {at['mse']:8.4f}  {at['psnr']:6.2f}  "
            f"{at['ssim']:6.3f}  {at['seconds']:7.1f}"
        )
    return lines
