"""Latents and options of the synthesis, from a config to what the tasks are given."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest

from configs import tiny
from navigan_jax import config as config_lib
from navigan_jax import tasks, testing
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator, read_generator, write_generator
from navigan_jax.tasks import inputs

LABELS = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Generators of both kinds; one has classes with names and images that are not square."""
    path = tmp_path_factory.mktemp("generators")
    for name in ("dcgan", "stylegan2"):
        config = dict(testing.TINY_CONFIGS[name])
        if name == "stylegan2":
            config |= {"label_names": LABELS, "first_size": (4, 6)}
        params = testing.draw_params(make_generator(name, config), 0)
        write_generator(path / name, name, config, params, {})
    return path


def configure(folder: pathlib.Path, name: str = "stylegan2", **changes: Any) -> config_lib.Config:
    """The tiny config with values by path, dots written as two underscores."""
    config = tiny.get_config("hessian")
    config.update(
        {"generator": str(folder / name), "layer": "1" if name == "stylegan2" else "conv1"}
    )
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config_lib.freeze(config)


def problem_of(config: config_lib.Config) -> inputs.Problem:
    return inputs.read_problem(config)


def test_options_reach_the_generator(folder: pathlib.Path) -> None:
    """Defaults are not passed, so an architecture without the options takes the config."""
    changes: dict[str, Any] = {
        "synthesis__truncation": 0.5,
        "synthesis__truncation_cutoff": 2,
        "synthesis__noise": "random",
        "synthesis__noise_seed": 3,
        "synthesis__label": "dog",
    }
    generator = problem_of(configure(folder, **changes)).generator
    options = {"truncation": 0.5, "truncation_cutoff": 2, "noise": "random", "noise_seed": 3}
    assert generator == read_generator(folder / "stylegan2", options | {"label": 1})[0]
    assert problem_of(configure(folder, "dcgan")).generator.architecture == "dcgan"
    with pytest.raises(InputError, match=r"^config\.synthesis\.truncation: expected an option"):
        problem_of(configure(folder, "dcgan", synthesis__truncation=0.5))
    with pytest.raises(InputError, match=r"got 'cow'; allowed: 0 to 1, or cat, dog"):
        problem_of(configure(folder, synthesis__label="cow"))
    with pytest.raises(InputError, match=r"synthesis\.noise: expected an allowed name"):
        tasks.TASKS["hessian"](configure(folder, synthesis__noise="loud"), folder / "none")


def drawn(config: config_lib.Config) -> tuple[Generator, np.ndarray]:
    problem = problem_of(config)
    latents = inputs.draw_latents(config, problem.generator)
    return problem.generator, inputs.mix_latents(config, problem, latents)


def test_latents_of_a_file_are_those_that_its_reader_gives(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config's number of latents is taken and reported. The reader has tests of its own."""
    generator, params = read_generator(folder / "stylegan2")
    z = np.asarray(generator.sample_latents(jax.random.key(0), 5))
    w_plus = np.asarray(jax.jit(generator.map_latent)(params, z))
    path = tmp_path / "latents.npz"
    config = configure(folder, latents__path=str(path), latents__count=4)
    for name, array, want in (
        ("z", z, z),
        ("w_plus", w_plus, w_plus),
        ("w", w_plus, w_plus),  # as the official projector writes it
        ("w", w_plus[:, 0], np.repeat(w_plus[:, :1], w_plus.shape[1], axis=1)),
    ):
        np.savez(path, **{name: array})
        np.testing.assert_array_equal(drawn(config)[1], want[:4])
        said = capsys.readouterr().out
        assert f"5 latents taken as {'z' if name == 'z' else 'w'}" in said
        assert "the first 4 are used" in said
    labelled = configure(folder, latents__path=str(path), synthesis__label="dog")
    np.savez(path, z=z[:, :7])
    np.testing.assert_array_equal(drawn(labelled)[1], np.c_[z[:, :7], np.tile([0, 1], (5, 1))])
    with pytest.raises(InputError, match=r"z followed by a label.*got 'z' \[5, 7\]"):
        drawn(config)
    np.savez(path, w=w_plus[:, :3])
    with pytest.raises(InputError, match=r"latents\.npz: .* w_plus \[count, 4, 11\]; got 'w' \[5"):
        drawn(config)
    dcgan = configure(folder, "dcgan", latents__path=str(path))
    with pytest.raises(
        InputError, match=r"expected latents of this generator, z \[count, 7\]; got"
    ):
        drawn(dcgan)


def test_latents_are_mixed_from_a_row_on(folder: pathlib.Path) -> None:
    """The rows before are those of the run without mixing, mapped; the others are of other z."""
    plain = configure(folder)
    generator, z = drawn(plain)
    w_plus = np.asarray(generator.map_latent(problem_of(plain).params, z))
    _, mixed = drawn(configure(folder, latents__mix_from=3))
    np.testing.assert_allclose(mixed[:, :3], w_plus[:, :3], rtol=1e-5, atol=1e-6)
    differences = np.abs(mixed[:, 3] - w_plus[:, 3]).max(axis=1)
    assert np.all(differences > 1e-3 * np.abs(w_plus[:, 3]).max(axis=1))
    with pytest.raises(InputError, match="got 4; allowed: up to 3; set it"):
        drawn(configure(folder, latents__mix_from=4))
    with pytest.raises(InputError, match="allowed: up to none, as it has no w"):
        drawn(configure(folder, "dcgan", latents__mix_from=0))


def test_task_runs_with_all_of_them(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Several layers at once, of all kinds; the pictures are of the class that was told."""
    config = configure(
        folder,
        layer="convs.1.modulation, to_rgb1, 0",
        directions=2,
        metric__name="l2",
        solver__tolerance=0.1,
        synthesis__truncation=0.7,
        synthesis__noise="none",
        synthesis__label="1",
        synthesis__precision="bfloat16",
        latents__mix_from=2,
    )
    tasks.TASKS["hessian"](config, tmp_path)
    with PIL.Image.open(tmp_path / "animation.gif") as picture:
        assert picture.width > picture.height
    assert (tmp_path / "gallery.html").exists()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["synthesis"]["label"] == "1"
