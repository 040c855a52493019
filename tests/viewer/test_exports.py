"""A checkpoint exported by the viewer is the user's checkpoint with the edit in its weights."""

import asyncio
import pathlib

import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax.directions import write_directions
from navigan_jax.editing.edit import apply_edit, combine
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.source_map import read_source_map
from navigan_jax.viewer.exports import Exporter, Source
from navigan_jax.viewer.studio import Studio
from navigan_jax.viewer.worker import Worker
from tests.tools import crafting
from tests.viewer.serving import make_directions, make_studio
from tools.convert_weights.__main__ import main as convert


def test_checkpoint_converts_to_the_shifted_weights(tmp_path: pathlib.Path) -> None:
    source, generator_path = tmp_path / "net.pth", tmp_path / "generator.safetensors"
    source.write_bytes(crafting.state_dict_file(crafting.dcgan_state()))
    assert convert(["dcgan", str(source), "--out", str(generator_path)]) == 0
    generator, params = read_generator(generator_path)
    directions = make_directions(params, "conv1/kernel", params_lib.digest(params))
    path = tmp_path / "directions.safetensors"
    write_directions(path, directions)
    studio = Studio(generator, params, directions, path, tmp_path / "work")
    moves = [{"index": 1, "shift": 0.5}, {"index": 4, "shift": -1.5}]
    view = studio.view({"sample": {"seed": 1}, "moves": moves})
    with Worker() as worker:
        exporter = Exporter(studio, worker, Source(source, read_source_map(generator_path)))
        assert exporter.kinds["checkpoint"].file == "edited-net.pth"
        made = asyncio.run(exporter.make("checkpoint", view)).data
    assert isinstance(made, pathlib.Path)
    baked = tmp_path / "baked.pth"
    baked.write_bytes(made.read_bytes())
    made.unlink()
    assert baked.stat().st_size == source.stat().st_size
    assert convert(["dcgan", str(baked), "--out", str(tmp_path / "again.safetensors")]) == 0
    edit = combine([directions.edit(1), directions.edit(4)], [0.5, -1.5])
    wanted = params_lib.flatten(apply_edit(params, edit, 1.0))
    for name, got in params_lib.flatten(read_generator(tmp_path / "again.safetensors")[1]).items():
        np.testing.assert_allclose(got, wanted[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_no_checkpoint_without_its_source(tmp_path: pathlib.Path) -> None:
    studio = make_studio("dcgan", tmp_path)
    with Worker() as worker:
        exporter = Exporter(studio, worker, None)
        with pytest.raises(InputError, match="kind: expected one of png, gif, mp4, recipe; got"):
            asyncio.run(exporter.make("checkpoint", studio.view({"sample": {"seed": 1}})))
