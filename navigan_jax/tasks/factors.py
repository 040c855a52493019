"""The task `factors`: measures which factors directions change, and proposes names."""

import csv
import dataclasses
import io
import json
import pathlib
from typing import Any

import jax
import numpy as np

from navigan_jax import checkpoints, devices, suggestions
from navigan_jax import directions as directions_lib
from navigan_jax.config import Config
from navigan_jax.editing import edit
from navigan_jax.errors import InputError
from navigan_jax.evaluation import factors as factors_lib
from navigan_jax.evaluation.factors import Readings, Responses
from navigan_jax.evaluation.gauges import Gauges
from navigan_jax.progress import Progress
from navigan_jax.showcase import base, heat_map
from navigan_jax.tasks import budget, choosing, inputs, showing
from navigan_jax.tasks.choosing import Choice
from navigan_jax.tasks.settings import NOT_NEGATIVE, SEED, Limits, Settings, wrong_number
from navigan_jax.tasks.workdirs import say, say_written

_OWN = Settings(
    {
        "seed": int,
        "gauges": str | None,
        "suggest": bool,
        "latents.count": int,
        "steps": int,
        "raw_shift": float,
        "microbatch": int,
        "memory_gib": float,
        "name.purity": float,
        "name.change": float,
        "name.consistency": float,
    },
    {
        "seed": SEED,
        "latents.count": Limits(least=2, most=10**6),
        "steps": Limits(least=2, most=200),
        "raw_shift": NOT_NEGATIVE,
        "microbatch": NOT_NEGATIVE,
        "memory_gib": inputs.BUDGET.limits["memory_gib"],
        "name.purity": Limits(most=1),
        "name.change": NOT_NEGATIVE,
        "name.consistency": Limits(most=1),
    },
)
SETTINGS = choosing.CHOICE | inputs.MIXING | inputs.METRIC | _OWN


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes factors.json, .csv, .png and .pdf to the workdir, and suggestions if wanted."""
    SETTINGS.check(config)
    if config.steps % 2:
        raise wrong_number(config, "steps", "an even number, half of it on each side of 0")
    choice = choosing.read_choice(config)
    gauges = inputs.require_gauges(config)
    choosing.require_scales(choice.directions, choice.indices, config.raw_shift)
    choice = dataclasses.replace(
        choice, problem=dataclasses.replace(choice.problem, metric=inputs.make_metric(config))
    )
    shifts = _shifts(config, choice)
    readings = _read(config, choice, gauges, shifts)
    units = _units(gauges, readings)
    responses = factors_lib.measure_responses(
        readings, shifts, units, [factor.is_circular for factor in gauges.factors]
    )
    rows = _rows(config, choice, gauges, responses)
    text = json.dumps(_table(config, choice, gauges, responses, rows, units), indent=1) + "\n"
    checkpoints.write_text(workdir / "factors.json", text)
    checkpoints.write_text(workdir / "factors.csv", _to_csv(gauges, responses, rows))
    _draw(config, workdir, choice, gauges, responses, rows)
    _say_names(rows)
    written = {
        "factors.png": "which direction changes which factor",
        "factors.pdf": "the same for a paper",
        "factors.csv": "responses, purities, ranges and names as a table",
        "factors.json": "the same with all curves",
    }
    say_written(workdir, written)
    if config.suggest:
        path = suggestions.sidecar_path(config.directions)
        checkpoints.write_text(path, text)
        say(f"wrote {path}: the names that gallery and viewer propose")


def _shifts(config: Config, choice: Choice) -> np.ndarray:
    """Returns the shifts of each chosen direction, from −s to +s without 0."""
    ends = showing.find_ends(choice.directions, choice.indices, config.raw_shift)
    whole = showing.spread_all(ends, config.steps + 1)
    return np.delete(whole, config.steps // 2, axis=1)


def _read(config: Config, choice: Choice, gauges: Gauges, shifts: np.ndarray) -> Readings:
    problem = choice.problem
    microbatch = budget.microbatch_of_images(config, problem)
    key = jax.random.fold_in(jax.random.key(config.seed), 6)
    z = np.asarray(problem.generator.sample_latents(key, config.latents.count))
    z = inputs.mix_latents(config, problem, z)
    edits = [edit.on_device(choice.directions.edit(index)) for index in choice.indices]
    batches = -(-len(z) // min(max(microbatch, 2), len(z))) * len(edits)
    with Progress(
        "factors", batches, unit="batches", is_main=devices.is_main_process()
    ) as progress:
        readings = factors_lib.read_factors(
            problem.generator,
            problem.params,
            problem.layers,
            problem.metric,
            gauges.read,
            z,
            edits,
            shifts,
            microbatch=microbatch,
            on_edit=progress.advance,
        )
    if not readings.between > 0:
        raise InputError(
            f"{problem.source}: expected images that differ with the latent; got the same for "
            "all; check the weights, and that config.synthesis.truncation, if set, is not near 0"
        )
    return readings


def _units(gauges: Gauges, readings: Readings) -> np.ndarray:
    """Returns the range of each factor; without one, four standard deviations over originals.

    Raises: InputError for a factor without a range that is the same for all originals.
    """
    spread = 4 * readings.original.std(axis=0)
    units = np.empty(len(gauges.factors))
    for number, factor in enumerate(gauges.factors):
        if factor.low is None or factor.high is None:
            units[number] = spread[number]
        else:
            units[number] = factor.high - factor.low
        if not units[number] > 0:
            raise InputError(
                f"{gauges.source}: expected the range of {factor.name!r}, as all images of the "
                "generator read the same; got none; give low and high to that factor"
            )
    return units


def _rows(
    config: Config, choice: Choice, gauges: Gauges, responses: Responses
) -> list[dict[str, Any]]:
    """Returns one row for each direction, as plain data for JSON."""
    rows = []
    for number, index in enumerate(choice.indices):
        largest = int(responses.largest[number])
        mean = responses.mean[number, largest]
        purity, consistency = responses.purity[number], responses.consistency[number]
        is_named = (
            purity >= config.name.purity
            and responses.reach(number, largest) >= config.name.change
            and consistency >= config.name.consistency
        )
        sign = "+" if mean > 0 else "−"
        rows.append(
            {
                "index": index,
                "name": f"{gauges.names[largest]} {sign}" if is_named else "",
                "factor": gauges.names[largest],
                "purity": float(purity),
                "consistency": float(consistency),
                "response": float(mean),
                "grows_between": list(responses.monotone_range(number, largest)),
                "change": responses.reach(number, largest),
            }
        )
    return rows


def _table(
    config: Config,
    choice: Choice,
    gauges: Gauges,
    responses: Responses,
    rows: list[dict[str, Any]],
    units: np.ndarray,
) -> dict[str, Any]:
    """Returns the content of factors.json."""
    each = [
        {
            **row,
            "responses": responses.mean[number].tolist(),
            "sizes": responses.size[number].tolist(),
            "shifts": responses.shifts[number].tolist(),
            "perceptual": responses.perceptual[number].tolist(),
            "curves": responses.curves[number].T.tolist(),
        }
        for number, row in enumerate(rows)
    ]
    return {
        "format": suggestions.FORMAT,
        "version": suggestions.VERSION,
        "directions_digest": directions_lib.digest(choice.directions),
        "generator_digest": choice.problem.digest,
        "gauges": gauges.source,
        "gauges_digest": gauges.digest,
        "metric": config.metric.name,
        "latents": config.latents.count,
        "seed": config.seed,
        "synthesis": inputs.synthesis(config).to_json(),
        "factors": [
            {"name": name, "unit": float(unit)}
            for name, unit in zip(gauges.names, units, strict=True)
        ],
        "directions": each,
    }


def _to_csv(gauges: Gauges, responses: Responses, rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    single = ("index", "name", "factor", "purity", "consistency", "response")
    writer.writerow([*single, "grows from", "grows to", *gauges.names])
    for row, response in zip(rows, responses.mean, strict=True):
        numbers = [*row["grows_between"], *response]
        writer.writerow(
            [row[key] if isinstance(row[key], str | int) else f"{row[key]:.5g}" for key in single]
            + [f"{number:.5g}" for number in numbers]
        )
    return stream.getvalue()


def _draw(
    config: Config,
    workdir: pathlib.Path,
    choice: Choice,
    gauges: Gauges,
    responses: Responses,
    rows: list[dict[str, Any]],
) -> None:
    """Writes the heat map."""
    shown = min(len(rows), heat_map.MAX_ROWS)
    more = f", the first {shown} of {len(rows)}" if shown < len(rows) else ""
    layer = ", ".join(layer.path for layer in choice.problem.layers)
    figure = heat_map.draw_heat_map(
        [_label(choice, row) for row in rows],
        gauges.names,
        responses.mean,
        responses.purity,
        title=f"What directions change{more}",
        subtitle=f"{layer}  ·  {config.metric.name}  ·  {config.latents.count} latents",
        threshold=config.name.purity,
    )
    for suffix in heat_map.SUFFIXES:
        heat_map.write_heat_map(workdir / f"factors{suffix}", figure)


def _label(choice: Choice, row: dict[str, Any]) -> str:
    name = choice.notes.get(row["index"]).name or row["name"]
    return f"{name}  {row['index']}" if name else str(row["index"])


def _say_names(rows: list[dict[str, Any]]) -> None:
    """Prints the proposed names."""
    named = [row for row in rows if row["name"]]
    say(f"{len(named)} of {len(rows)} directions change one factor above all:")
    for row in named:
        low, high = (base.format_number(end, signed=True) for end in row["grows_between"])
        say(
            f"  direction {row['index']:3d}  {row['name']:24s} purity {row['purity']:.2f}  "
            f"t {low} … {high}"
        )
