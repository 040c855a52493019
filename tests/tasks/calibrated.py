"""A folder with a tiny generator, calibrated directions and notes, for tests that look at them."""

import pathlib

import numpy as np

from navigan_jax import directions as directions_lib
from navigan_jax import notes, testing
from navigan_jax import params as params_lib
from navigan_jax.directions import Directions, write_directions
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.notes import Note, Notes

SIZES = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}
COUNT = 5


def write_calibrated(folder: pathlib.Path) -> pathlib.Path:
    """Writes a generator, calibrated directions of its layer conv1, and notes on two of them."""
    generator = make_generator("dcgan", SIZES)
    params = testing.draw_params(generator, 0)
    write_generator(folder / "generator.safetensors", "dcgan", SIZES, params, {})
    layer = generator.find_layers(["conv1"])[0]
    rows = np.random.RandomState(3).standard_normal((COUNT, *layer.shape)).astype(np.float32)
    rows /= np.sqrt(np.sum(rows**2, axis=(1, 2, 3, 4), keepdims=True))
    names = ("architecture", "method", "metric", "seed", "latents", "config")
    directions = Directions(
        basis={layer.path: rows},
        measures={"accuracy": np.linspace(1, 0.5, COUNT)},
        shift_scales=np.full((COUNT, 2), [2.0, 3.0]),
        distances=np.full((COUNT, 2), 0.1),
        plausible=np.full((COUNT, 2), [1.5, 9.0]),
        provenance=dict.fromkeys(names, "none") | {"digest": params_lib.digest(params)},
    )
    path = folder / "directions.safetensors"
    write_directions(path, directions)
    noted = Notes(directions_lib.digest(directions))
    noted = noted.with_note(3, Note("smile", True)).with_note(1, Note("age", True, (-1.0, 2.0)))
    notes.write_notes(path, noted)
    return folder
