"""A view's image equals its recipe's to the bit; notes are written at once."""

import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from navigan_jax import directions as directions_lib
from navigan_jax import inverted, notes, testing
from navigan_jax import params as params_lib
from navigan_jax.editing import recipe_files, rendering
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.editing.recipe import Given
from navigan_jax.editing.rendering import render
from navigan_jax.errors import InputError
from navigan_jax.inverted import Inverted, write_inverted
from navigan_jax.showcase.base import to_rgb
from navigan_jax.viewer.own_photographs import OwnPhotographs
from navigan_jax.viewer.studio import SMALL, Studio
from tests.viewer.serving import COUNT, make_studio

SAMPLE = {"seed": 3, "index": 1}
MOVES = [{"index": 2, "shift": 1.5}, {"index": 0, "shift": -0.7}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Returns a studio for tests that do not change notes."""
    return make_studio("stylegan2", tmp_path_factory.mktemp("studio"))


@pytest.fixture
def studio(tmp_path: pathlib.Path) -> Studio:
    return make_studio("dcgan", tmp_path)


def view_of(**changes: Any) -> dict[str, Any]:
    return {"sample": SAMPLE, "moves": MOVES, "mix": None} | changes


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def own_latent(studio: Studio) -> tuple[dict[str, Any], np.ndarray]:
    w_plus = np.random.RandomState(0).standard_normal((2, *studio.latent_shape)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, w_plus=w_plus)
    return {"own": studio.own.add(buffer.getvalue())[0], "index": 1}, w_plus[1]


def write_photographs(studio: Studio, path: pathlib.Path, digest: str = "") -> Inverted:
    """Writes two photographs with changes of one weight; digest: of other weights."""
    layer = studio.directions.layers[0]
    shape = np.shape(params_lib.get(studio.params, layer))
    random = np.random.RandomState(1)
    found = Inverted(
        names=["a.jpg", "b.jpg"],
        sha256=["00", "11"],
        space="w_plus",
        latents=random.standard_normal((2, *studio.latent_shape)).astype(np.float32),
        changes={layer: 0.1 * random.standard_normal((2, *shape)).astype(np.float32)},
        corners=np.zeros((2, 4, 2)),
        measures={},
        provenance=dict.fromkeys(("architecture", "method", "metric"), "none")
        | {"digest": digest or studio.digest},
    )
    write_inverted(path, found)
    return found


def test_opened_photographs_are_samples_with_their_own_weights(
    shared: Studio, tmp_path: pathlib.Path
) -> None:
    """The image is that of θ + Δ + tξ; a restart finds the photographs again."""
    path = tmp_path / "inverted.safetensors"
    found = write_photographs(shared, path)
    told = shared.add_own(path.read_bytes(), path.name)
    assert (told["count"], told["space"]) == (2, "w_plus")
    view = shared.view(view_of(sample={"own": told["own"], "index": 1}))
    edits = [found.edit(1), *(shared.directions.edit(move["index"]) for move in MOVES)]
    total = combine(edits, [1.0, *(move["shift"] for move in MOVES)])
    recipe = dataclasses.replace(
        view.recipe, samples=(Given.of("w_plus", found.latents[1]),), moves=()
    )
    expected = render(recipe, shared.generator, apply_edit(shared.params, total, 1.0), {})[0]
    testing.assert_close(shared.render(view.recipe), expected, 1e-4)
    text = shared.recipe_text(view.recipe)
    assert json.loads(text)["samples"][0]["photographs"] == inverted.digest(found)
    with pytest.raises(InputError, match="a photograph from 0 to 1"):
        shared.view(view_of(sample={"own": told["own"], "index": 2}))
    again = OwnPhotographs(
        shared.photographs._folder, shared.photographs._spaces, shared.params, shared.digest
    )
    digest = again.find(told["own"])
    assert digest is not None and len(again.by_digest[digest]) == 2
    assert again.find("../../etc/passwd") is None


def test_photographs_of_another_generator_are_refused(
    shared: Studio, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "inverted.safetensors"
    write_photographs(shared, path, digest="other")
    with pytest.raises(InputError, match=r"^mine\.safetensors: .*found in the weights"):
        shared.add_own(path.read_bytes(), "mine.safetensors")
    with pytest.raises(InputError, match="mine"):
        shared.add_own(path.read_bytes()[:200], "mine.safetensors")


# Images


@pytest.mark.parametrize("kind", ["plain", "mixed", "own"])
def test_png_has_the_pixels_of_the_exported_recipe(shared: Studio, kind: str) -> None:
    """Equal bytes: the exported text is rendered by the function that every task calls."""
    view = view_of()
    if kind == "mixed":
        view["mix"] = {"source": {"seed": 9, "index": 0}, "rows": [0, 2], "amount": 0.6}
    if kind == "own":
        view["sample"], latent = own_latent(shared)
    found = shared.view(view)
    recipe = recipe_files.from_text(shared.recipe_text(found.recipe))
    if kind == "own":
        assert recipe.samples == (Given.of("w_plus", latent),)
    generator = testing.tiny_generators()["stylegan2"]
    params = testing.draw_params(generator, seed=1)
    read = directions_lib.read_directions(shared.path, digest=params_lib.digest(params))
    images = render(recipe, generator, params, {directions_lib.digest(read): read})
    expected = to_rgb(images[0])
    np.testing.assert_array_equal(pixels(shared.png(found)), expected)
    other = shared.view(view | {"moves": [MOVES[0] | {"shift": 1.4}]})
    assert not np.array_equal(pixels(shared.png(other)), expected)


def test_own_latent_moves_the_image_and_no_shift_is_the_original(shared: Studio) -> None:
    png = {
        name: shared.png(shared.view(view))
        for name, view in {
            "original": view_of(moves=[]),
            "zero": view_of(moves=[{"index": 1, "shift": 0}]),
            "no keys": {"sample": SAMPLE},
            "edited": view_of(),
            "own": view_of(moves=[], sample=own_latent(shared)[0]),
        }.items()
    }
    assert png["original"] == png["zero"] == png["no keys"]
    assert len(set(png.values())) == 3


def test_order_of_keys_does_not_matter(shared: Studio) -> None:
    view = view_of()
    assert shared.view(view).key == shared.view(dict(reversed(view.items()))).key
    assert shared.view(view).key != shared.view(view_of(moves=[])).key


def test_image_is_made_once(shared: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    view = shared.view(view_of(sample={"seed": 77}))
    first = shared.png(view)
    monkeypatch.setattr(Studio, "render", lambda *_: pytest.fail("rendered again"))
    assert shared.png(view) is first


def test_drag_runs_the_stages_from_its_layer_on(
    shared: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layer,) = shared.generator.find_layers(shared.directions.layers)
    ran: list[int] = []
    run_stage = rendering._run_stage
    monkeypatch.setattr(
        rendering, "_run_stage", lambda *a, **k: ran.append(k["stage"]) or run_stage(*a, **k)
    )
    for shift in (0.5, 0.6):
        ran.clear()
        shared.png(shared.view(view_of(sample={"seed": 78}, moves=[{"index": 1, "shift": shift}])))
    assert ran == list(range(layer.stage, shared.generator.stages))


def test_small_picture_is_small(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    view = studio.view({"sample": SAMPLE})
    assert pixels(studio.png(view)).shape == pixels(studio.png(view, small=True)).shape
    large = np.random.RandomState(0).uniform(-1, 1, (2 * SMALL, SMALL, 3)).astype(np.float32)
    monkeypatch.setattr(Studio, "render", lambda *_: large)
    png = studio.png(studio.view({"sample": {"seed": 4}}), small=True)
    assert pixels(png).shape == (SMALL, SMALL // 2, 3)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (None, "view: expected a JSON object"),
        ([], "view: expected a JSON object"),
        ({}, "view: expected the key sample"),
        (view_of(extra=1), "view: expected only the keys mix, moves, sample; got 'extra'"),
        (view_of(sample=3), "sample: expected a JSON object"),
        (view_of(sample={}), "sample: expected a seed"),
        (view_of(sample={"seed": -1}), "seed: expected a whole number"),
        (view_of(sample={"seed": True}), "seed: expected a whole number"),
        (view_of(sample={"seed": 1, "index": 2**20}), "index: expected a whole number"),
        (view_of(sample={"seed": 1, "own": "0" * 16}), "not both"),
        (view_of(sample={"own": "0" * 16}), "which is not saved here"),
        (view_of(moves={}), "moves: expected a list of at most 64"),
        (view_of(moves=[{"index": 0, "shift": 1}] * 65), "moves: expected a list of at most 64"),
        (view_of(moves=[{"index": 0, "shift": 1}] * 2), "moves: expected each direction once"),
        (view_of(moves=[{"index": COUNT, "shift": 1}]), "direction: expected a number from 0 to 5"),
        (view_of(moves=[{"index": -1, "shift": 1}]), "index: expected a whole number"),
        (view_of(moves=[{"index": 0, "shift": "1"}]), "shift: expected a finite number"),
        (view_of(moves=[{"index": 0, "shift": float("inf")}]), "shift: expected a finite number"),
        (view_of(moves=[{"index": 0}]), "move: expected the key shift"),
        (view_of(mix={"source": SAMPLE}), "mix: expected the key rows"),
        (view_of(mix={"source": SAMPLE, "rows": [99]}), "mixes: rows: expected rows of"),
        (view_of(mix={"source": SAMPLE, "rows": "all"}), "rows: expected a list"),
        (view_of(mix={"source": SAMPLE, "rows": [0], "amount": None}), "amount: expected a finite"),
    ],
)
def test_invalid_view_is_refused(shared: Studio, view: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared.view(view)


def test_own_index_beyond_the_file_is_refused(shared: Studio) -> None:
    sample, _ = own_latent(shared)
    for index in (2, -1, 0.5, "0"):
        with pytest.raises(InputError, match="index: expected a whole number from 0 to 1"):
            shared.view(view_of(sample=sample | {"index": index}))


# Description


def test_description_is_json_and_has_the_rows_of_the_latent(shared: Studio, studio: Studio) -> None:
    told = json.loads(json.dumps(shared.describe(), allow_nan=False))
    assert told["generator"]["rows"] == 4 and studio.describe()["generator"]["rows"] == 0
    assert told["directions"]["layers"] == ["synthesis/b8/conv0/kernel"]
    names = [measure["name"] for measure in told["directions"]["measures"]]
    assert names == ["eigenvalue", "residual"]
    assert told["directions"]["measures"][1]["values"][3] is None  # infinite
    assert told["directions"]["plausible"] == [[-2.0, 3.0]] * COUNT


def test_s_of_a_direction_without_one_is_1(tmp_path: pathlib.Path) -> None:
    studio = make_studio("dcgan", tmp_path)
    studio.directions.shift_scales[1] = 0.0
    np.testing.assert_allclose(
        studio.describe()["directions"]["ends"][:3], [[-1, 1.5], [-1, 1], [-1.4, 2.1]]
    )


# Notes


def test_note_is_on_the_disk_when_its_change_returns(studio: Studio) -> None:
    studio.change_note(2, {"name": "smile"})
    told = studio.change_note(2, {"starred": True, "good_range": [-1.5, 2]})
    assert told["notes"]["2"] == {
        "name": "smile",
        "starred": True,
        "good_range": [-1.5, 2],
        "text": "",
    }
    kept = notes.read_notes(studio.path, digest=studio.directions_digest, count=COUNT)
    assert kept.get(2) == notes.Note("smile", True, (-1.5, 2))
    assert kept.get(1) == notes.Note()


def test_changes_by_others_are_kept(studio: Studio) -> None:
    """Another program writes between two changes by the viewer; all changes stay."""
    before = studio.change_note(0, {"name": "mine"})["mark"]
    kept = notes.read_notes(studio.path, digest=studio.directions_digest, count=COUNT)
    notes.write_notes(studio.path, kept.with_note(1, notes.Note("theirs")))
    assert studio.notes()["mark"] == studio.notes_mark != before
    told = studio.change_note(0, {"starred": True})["notes"]
    assert told["0"]["name"] == "mine" and told["1"]["name"] == "theirs"


def test_recipe_carries_names(studio: Studio) -> None:
    studio.change_note(2, {"name": "smile"})
    recipe = recipe_files.from_text(studio.recipe_text(studio.view(view_of()).recipe))
    assert [move.name for move in recipe.moves] == ["smile", ""]
    assert {move.file for move in recipe.moves} == {"directions.safetensors"}


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (COUNT, {"starred": True}, "index: expected a direction from 0 to 5"),
        (True, {"starred": True}, "index: expected a direction"),
        ("0", {"starred": True}, "index: expected a direction"),
        (0, [], "change: expected a JSON object"),
        (0, {"star": True}, "change: expected only the keys"),
        (0, {"starred": 1}, "starred: expected true or false"),
        (0, {"name": "x" * 121}, "name: expected a text of at most 120"),
        (0, {"name": "two\nlines"}, "name: expected one line"),
        (0, {"good_range": [1]}, "good_range: expected two"),
        (0, {"good_range": [2, 1]}, "good_range: expected two"),
        (0, {"good_range": "wide"}, "good_range: expected two"),
    ],
)
def test_invalid_note_is_refused_and_changes_nothing(
    studio: Studio, index: Any, change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        studio.change_note(index, change)
    assert studio.notes()["notes"] == {}


def test_damaged_notes_file_is_refused_and_kept(studio: Studio) -> None:
    path = notes.sidecar_path(studio.path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"directions\.notes\.json"):
        studio.change_note(0, {"starred": True})
    assert path.read_text(encoding="utf-8") == "{"
