"""The task `bake`: writes an edit into a copy of the user's own checkpoint."""

import hashlib
import json
import pathlib

from navigan_jax import checkpoints, devices
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, Edit, read_directions
from navigan_jax.editing.bake import bake, original_name
from navigan_jax.editing.recipe_files import read_recipe
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.source_map import read_source_map
from navigan_jax.tasks.settings import Settings
from navigan_jax.tasks.workdirs import claim, say, say_written

SETTINGS = Settings(
    {
        "task": str,
        "distributed": bool,
        "generator": str,
        "source": str,
        "out": str | None,
        "networks": str | None,
        "recipe": str | None,
        "directions": str | None,
        "indices": tuple[int, ...],
        "shifts": tuple[float, ...],
        "any_weights": bool,
    }
)

_RECORD = "baked.json"


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes the edited copy, and what it is to baked.json in the workdir."""
    SETTINGS.check(config)
    _, params = read_generator(config.generator)
    source_map = read_source_map(config.generator)
    edits = _read_edits(config, params)
    out = pathlib.Path(config.out or workdir / original_name(config.source, source_map))
    networks = [name.strip() for name in (config.networks or source_map.converted).split(",")]
    moves = [{"direction": label, "shift": shift} for label, _, shift in edits]
    inputs = {"generator": params_lib.digest(params), "source": source_map.sha256}
    free_keys = ("generator", "source", "directions", "recipe", "distributed")
    if devices.is_main_process():
        with checkpoints.locked(workdir):
            claim(workdir, config, inputs, results=(_RECORD,), free_keys=free_keys)
            pairs = [(edit, shift) for _, edit, shift in edits]
            bake(config.source, out, source_map, params, pairs, networks=networks)
            with open(out, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            record = {"file": str(out), "sha256": digest, "networks": networks, "moves": moves}
            checkpoints.write_text(workdir / _RECORD, json.dumps(record, indent=2) + "\n")
    layers = sorted({path for _, edit, _ in edits for path in edit.deltas})
    for label, _, shift in edits:
        say(f"{label}: shift {shift:g}")
    say(f"{out}: {', '.join(networks)} of {source_map.file}, with other weights in")
    say(f"  {', '.join(layers)}")
    say_written(workdir, {_RECORD: "what it is"})


def _read_edits(config: Config, params: Params) -> list[tuple[str, Edit, float]]:
    """Returns (label, ξ, t) of all that is to be baked."""
    if config.recipe is not None:
        moves = _moves_of_recipe(config)
    elif config.directions is not None:
        moves = [(config.directions, "", *move) for move in _moves_of_keys(config)]
    else:
        raise InputError(
            "config.directions: expected what to bake; got neither directions nor a recipe; set "
            "config.directions, indices and shifts, or config.recipe"
        )
    digest = None if config.any_weights else params_lib.digest(params)
    files: dict[str, Directions] = {}
    edits = []
    for file, wanted, index, shift in moves:
        if file not in files:
            files[file] = read_directions(file, digest=digest)
            directions_lib.require_fit(file, files[file], params)
        if wanted and directions_lib.digest(files[file]) != wanted:
            raise InputError(
                f"{file}: expected the directions of digest {wanted}, as the recipe says; got "
                f"{directions_lib.digest(files[file])}; give the right file with "
                '--config.directions=FILE, or change "directions" of the move to the digest that '
                "python -m tools.convert_weights inspect FILE tells"
            )
        edits.append((f"direction {index} of {file}", files[file].edit(index), shift))
    return edits


def _moves_of_keys(config: Config) -> list[tuple[int, float]]:
    if not config.indices or len(config.indices) != len(config.shifts):
        raise InputError(
            "config.shifts: expected one for each of config.indices, one or more; got "
            f"{len(config.shifts)} for {len(config.indices)}; set for example "
            '--config.indices="(4,)" --config.shifts="(30.0,)"'
        )
    return list(zip(config.indices, config.shifts, strict=True))


def _moves_of_recipe(config: Config) -> list[tuple[str, str, int, float]]:
    """Returns (file, digest of its directions, index, shift) of each move."""
    if config.indices or config.shifts:
        raise InputError(
            "config.recipe: expected a recipe alone; got indices or shifts too; leave one out"
        )
    recipe = read_recipe(config.recipe)
    if not recipe.moves:
        raise InputError(
            f"{config.recipe}: expected moves to bake; got none; latents cannot be baked"
        )
    if recipe.mixes or recipe.truncation != 1:
        say(f"{config.recipe}: mixes and truncation are of latents and cannot be baked; left out")
    folder = pathlib.Path(config.recipe).parent
    moves = []
    for move in recipe.moves:
        if not (config.directions or move.file):
            raise InputError(
                f"{config.recipe}: expected the file of its directions; got none; give it with "
                "--config.directions=FILE"
            )
        file = config.directions or str(folder / move.file)
        moves.append((file, move.directions, move.index, move.shift))
    return moves
