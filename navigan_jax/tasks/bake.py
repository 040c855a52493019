"""The task `bake`: writes an edit into a copy of the user's own checkpoint."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from navigan_jax import checkpoints, devices
from navigan_jax import directions as directions_lib
from navigan_jax import inverted as inverted_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, Edit, read_directions
from navigan_jax.editing.bake import add_edits, bake, original_name
from navigan_jax.editing.recipe_files import read_recipe
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.own import write_params
from navigan_jax.generators.source_map import read_source_map
from navigan_jax.inverted import read_inverted
from navigan_jax.own_code import is_own_code
from navigan_jax.tasks.settings import NOT_NEGATIVE, Settings, wrong_number
from navigan_jax.tasks.workdirs import claim, require_same, say, say_written

SETTINGS = Settings(
    {
        "task": str,
        "compilation_cache": bool,
        "distributed": bool,
        "generator": str,
        "source": str | None,
        "out": str | None,
        "networks": str | None,
        "recipe": str | None,
        "directions": str | None,
        "photographs": str | None,
        "photograph": int,
        "indices": tuple[int, ...],
        "shifts": tuple[float, ...],
        "any_weights": bool,
    },
    {"photograph": NOT_NEGATIVE},
)

_RECORD = "baked.json"


class _Move(NamedTuple):
    """t ξ to add to the weights. plausible: effective range of t, or None if unknown."""

    file: str
    number: int
    edit: Edit
    shift: float
    plausible: tuple[float, float] | None
    kind: str = "direction"

    @property
    def label(self) -> str:
        return f"{self.kind} {self.number} of {self.file}"

    def describe(self) -> str:
        """Returns the move in words, with a note if the shift is out of the effective range."""
        text = f"{self.label}: shift {self.shift:g}"
        if self.plausible is None or self.plausible[0] <= self.shift <= self.plausible[1]:
            return text
        low, high = self.plausible
        return f"{text}; outside the effective range, {low:.3g} to {high:.3g}"


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes the edited copy, and its description to baked.json in the workdir."""
    SETTINGS.check(config)
    _, params = read_generator(config.generator)
    own = is_own_code(config.generator)
    target = _own_target(config, params) if own else _target(config)
    moves = _read_moves(config, params)
    out = pathlib.Path(config.out or workdir / target.name)
    files = ["" if own else config.generator, config.recipe or "", str(workdir / _RECORD)]
    _require_other(out, [*files, *(move.file for move in moves)])
    inputs = {"generator": params_lib.digest(params), **target.inputs}
    free_keys = (
        "generator",
        "source",
        "directions",
        "recipe",
        "photographs",
        "compilation_cache",
        "distributed",
    )
    stored: Sequence[str] = ()
    if devices.is_main_process():
        with checkpoints.locked(workdir):
            require_same(workdir, config, inputs, results=(_RECORD,), free_keys=free_keys)
            stored = target.write(out, params, [(move.edit, move.shift) for move in moves])
            # Only now, so that a refused run leaves nothing behind.
            claim(workdir, config, inputs, results=(_RECORD,), free_keys=free_keys)
            with open(out, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            record = {
                "file": str(out),
                "sha256": digest,
                "networks": target.networks,
                "stored": list(stored),
                "moves": [{"direction": move.label, "shift": move.shift} for move in moves],
            }
            checkpoints.write_text(workdir / _RECORD, json.dumps(record, indent=2) + "\n")
    layers = sorted({path for move in moves for path in move.edit.deltas})
    for move in moves:
        say(move.describe())
    if stored:
        say(
            f"changed in the file: {', '.join(stored)}; the original program divides a weight by "
            "its spectral norm, and what is stored beside the weight makes up for the change"
        )
    written = str(out.absolute()) if config.out else out.name
    what = f"{target.what}, with edited weights in {', '.join(layers)}"
    say_written(workdir, {written: what, _RECORD: "its description"})


class _Target(NamedTuple):
    """What is written. name: of the file, unless config.out is set. what: in words.

    write: returns the names in the file of the arrays that change for normalised weights.
    """

    name: str
    what: str
    networks: list[str]
    inputs: dict[str, str]
    write: Callable[[pathlib.Path, Params, Sequence[tuple[Edit, float]]], Sequence[str]]


def _target(config: Config) -> _Target:
    """Returns the copy of the checkpoint from which the generator was converted."""
    source_map = read_source_map(config.generator)
    source = config.source
    if not source:
        raise InputError(
            "config.source: expected the checkpoint that the generator was converted from; got "
            f"nothing; set --config.source={source_map.file}"
        )
    networks = [name.strip() for name in (config.networks or source_map.converted).split(",")]

    def write(
        out: pathlib.Path, params: Params, edits: Sequence[tuple[Edit, float]]
    ) -> Sequence[str]:
        return bake(source, out, source_map, params, edits, networks=networks)

    return _Target(
        original_name(source, source_map),
        f"{', '.join(networks)} of {source_map.file}",
        networks,
        {"source": source_map.sha256},
        write,
    )


def _own_target(config: Config, params: Params) -> _Target:
    """Returns the parameters of one's own generator, which has no checkpoint of a known form."""
    for key in ("source", "networks"):
        if getattr(config, key):
            raise InputError(
                f"config.{key}: expected nothing, as {config.generator} makes its own parameters; "
                f"got {getattr(config, key)!r}; leave the key out"
            )
    if config.out and not config.out.endswith(".safetensors"):
        raise InputError(
            f"config.out: expected a name that ends in .safetensors; got {config.out!r}; rename it"
        )

    def write(
        out: pathlib.Path, params: Params, edits: Sequence[tuple[Edit, float]]
    ) -> Sequence[str]:
        write_params(out, add_edits(params, edits))
        return ()

    what = f"all {len(params_lib.flatten(params))} parameters of {config.generator}"
    return _Target("params.safetensors", what, [], {}, write)


def _require_other(out: pathlib.Path, files: Sequence[str]) -> None:
    """Checks that the copy does not take the place of one of these files. Raises: InputError."""
    for file in filter(None, files):
        if checkpoints.is_same_file(file, out):
            raise InputError(
                f"{out}: expected a new file for the copy; got one that this run reads or writes; "
                "set another name with --config.out=FILE"
            )


def _read_moves(config: Config, params: Params) -> list[_Move]:
    """Returns all moves to bake."""
    if config.recipe is not None:
        asked = _moves_of_recipe(config)
    elif config.directions is not None or config.photographs is None:
        if config.directions is None:
            raise InputError(
                "config.directions: expected directions, a recipe or a photograph to bake; got "
                "none; set config.directions, indices and shifts, or config.recipe, or "
                "config.photographs"
            )
        asked = [(config.directions, "", *move) for move in _moves_of_keys(config)]
    else:
        asked = []
    digest = params_lib.digest(params)
    files: dict[str, Directions] = {}
    moves = [] if config.photographs is None else [_tuned(config, params, digest)]
    for file, wanted, index, shift in asked:
        if file not in files:
            files[file] = read_directions(file, digest=None if config.any_weights else digest)
            directions_lib.require_fit(file, files[file], params)
        if wanted and directions_lib.digest(files[file]) != wanted:
            raise InputError(
                f"{file}: expected the directions of digest {wanted}, as the recipe says; got "
                f"{directions_lib.digest(files[file])}; give the right file with "
                '--config.directions=FILE, or change "directions" of the move to the digest that '
                "python -m tools.convert_weights inspect FILE prints"
            )
        try:
            edit = files[file].edit(index)
        except InputError as error:
            raise InputError(f"{config.recipe or 'config.indices'}: {file}: {error}") from error
        moves.append(_Move(file, index, edit, shift, _plausible(files[file], index, digest)))
    return moves


def _tuned(config: Config, params: Params, digest: str) -> _Move:
    """Returns the change of the weights that belongs to a photograph."""
    path, index = config.photographs, config.photograph
    found = read_inverted(path, digest=None if config.any_weights else digest)
    if index >= len(found):
        raise wrong_number(config, "photograph", f"a number from 0 to {len(found) - 1}")
    if not found.changes:
        raise InputError(
            f"{path}: expected photographs to which the weights were tuned; got latents alone, "
            "which cannot be baked; tune with --config=configs/invert.py:tuned"
        )
    shapes = {found.space: found.latents.shape[1:]}
    inverted_lib.require_fit(path, found, params, shapes)
    return _Move(path, index, found.edit(index), 1.0, None, "photograph")


def _plausible(directions: Directions, index: int, digest: str) -> tuple[float, float] | None:
    """Returns the effective range of t, or None if it is unknown for these weights."""
    if directions.plausible is None or directions.provenance["digest"] != digest:
        return None
    low, high = map(float, directions.plausible[index])
    return (-low, high) if max(low, high) > 0 else None


def _moves_of_keys(config: Config) -> list[tuple[int, float]]:
    if not config.indices or len(config.indices) != len(config.shifts):
        raise InputError(
            "config.shifts: expected one shift for each of config.indices, at least one; got "
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
        say(f"{config.recipe}: mixes and truncation change latents and cannot be baked: left out")
    folder = pathlib.Path(config.recipe).parent
    moves = []
    for move in recipe.moves:
        if not (config.directions or move.file):
            raise InputError(
                f"{config.recipe}: expected the name of its directions file; got none; give it "
                "with --config.directions=FILE"
            )
        file = config.directions or str(folder / move.file)
        moves.append((file, move.directions, move.index, move.shift))
    return moves
