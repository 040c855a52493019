"""Recipes as text: a written recipe reads back equal, and a message names the wrong entry."""

import json

import numpy as np
import pytest

from navigan_jax.editing.recipe import Drawn, Given, Mix, Move, Recipe, Synthesis, Video
from navigan_jax.editing.recipe_files import from_text, read_recipe, to_text, write_recipe
from navigan_jax.errors import InputError

RANDOM = np.random.RandomState(0)
WHOLE = Recipe(
    generator="8f0a",
    samples=(
        Drawn(3, 2),
        Given.of("z", RANDOM.standard_normal(7).astype(np.float32)),
        Given.of("w_plus", RANDOM.standard_normal((4, 5)).astype(np.float32)),
    ),
    moves=(Move("a1", 4, 0.1 + 0.2, "runs/demo/directions.safetensors", "smile ☺"),),
    mixes=(Mix(Drawn(5), (0, 2), 0.3, (1,)), Mix(Given("z", (1.5,)))),
    truncation=0.7,
    enlarge=3,
    video=Video(0.0, 1.0, 2.5, 24, "smooth", False),
    synthesis=Synthesis(0.5, 3, "random", 7, "dog", "bfloat16"),
)


def test_recipe_comes_back_equal(tmp_path):
    """Numbers are equal to the bit; keys with default values may be missing."""
    write_recipe(tmp_path / "recipe.json", WHOLE)
    assert read_recipe(tmp_path / "recipe.json") == WHOLE
    short = {
        "format": "navigan_jax.recipe",
        "version": 1,
        "generator": "8f",
        "samples": [{"seed": 3}],
    }
    assert from_text(json.dumps(short)) == Recipe("8f", (Drawn(3),))
    assert "synthesis" not in to_text(Recipe("8f", (Drawn(3),)))


def changed(**changes):
    return json.dumps({**json.loads(to_text(WHOLE)), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "recipe: expected JSON; got .*line 1"),
        ("[" * 100_000, "recipe: expected JSON; got"),
        ("[]", "recipe: expected a JSON object with the keys "),
        (changed(version=2), 'expected "format": "navigan_jax.recipe" and "version": 1; got .* 2'),
        (changed(smaples=[]), "recipe: expected only the keys enlarge, .*; got 'smaples'"),
        (changed(samples=[]), "samples: expected one or more; got"),
        (changed(synthesis={"noise": 0}), "noise: expected one line of text; got 0; change it"),
        (changed(synthesis={"psi": 1}), "synthesis: expected only the keys label, .*; got 'psi'"),
        (changed(samples={}), "samples: expected a list; got {}"),
        (changed(samples=[{"seed": 1.0}]), r"samples\[0\]: seed: expected a whole number from 0"),
        (changed(samples=[{"seed": True}]), r"samples\[0\]: seed: expected a whole number from 0"),
        (changed(samples=[{"seed": 2**32}]), "seed: expected a whole number from 0 to 4294967295"),
        (changed(samples=[{"index": 1}]), r"samples\[0\]: expected a seed .*; got \['index'\]"),
        (
            changed(samples=[{"z": [1, "a"]}]),
            r"samples\[0\]: z: expected finite numbers of float32, nes",
        ),
        (
            changed(samples=[{"z": [float("nan")]}]),
            "z: expected finite numbers of float32, nes",
        ),
        (changed(samples=[{"z": [1.0, 1e300]}]), "z: expected finite numbers of float32, nes"),
        (changed(samples=[{"z": [[[[1.0]]]]}]), "z: expected finite numbers of float32, nes"),
        (
            changed(samples=[{"w_plus": [[1], [2, 3]]}]),
            "w_plus: expected finite numbers of float32, nes",
        ),
        (
            changed(samples=[{"z": [1.0], "seed": 1}]),
            "z, w_plus, or photographs and an index; got",
        ),
        (
            changed(moves=[{"index": 0}]),
            r"moves\[0\]: expected the key directions, the digest .* prints; got \['index'\]",
        ),
        (
            changed(moves=[{"directions": "a", "index": 0, "shift": float("inf")}]),
            r"moves\[0\]: shift: expected a finite number; got inf; change it in the recipe",
        ),
        (
            changed(moves=[{"directions": "a", "index": 0, "shift": 10**400}]),
            r"moves\[0\]: shift: expected a finite number; got 10000",
        ),
        (changed(mixes=[{"source": {"seed": -1}}]), r"mixes\[0\]: .*seed: expected a whole number"),
        (changed(mixes=[{"source": {"seed": 1}, "rows": 3}]), "rows: expected a list of whole num"),
        (changed(mixes=[{"source": {"seed": 1}, "samples": [3]}]), "mixes: samples: expected plac"),
        (changed(truncation=None), "truncation: expected a finite number; got None"),
        (changed(enlarge=0), "enlarge: expected a whole number from 1 to 64; got 0"),
        (changed(video={"easing": "bounce"}), "easing: expected one of sine, smooth, linear; got"),
        (changed(video={"seconds": 1e6}), "seconds: expected 0.2 to 120; got 1000000.0"),
        (changed(generator=""), "generator: expected one line of text; got ''"),
    ],
)
def test_message_names_the_wrong_entry(text, message):
    with pytest.raises(InputError, match=message):
        from_text(text)


def test_message_names_the_file(tmp_path):
    path = tmp_path / "recipe.json"
    with pytest.raises(InputError, match=r"recipe.json: expected a recipe; got nothing; export"):
        read_recipe(path)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"recipe.json: expected the key generator, the digest"):
        read_recipe(path)
