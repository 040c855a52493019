"""The microbatch that a stated budget allows: what is estimated, what is chosen, what is said."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from configs import tiny
from navigan_jax import config as config_lib
from navigan_jax.config import Config
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.tasks import budget, hessian, inputs
from navigan_jax.tasks.budget import Estimate
from navigan_jax.tasks.inputs import Problem

SIZES = {"z_dim": 4, "widths": [6, 5], "image_channels": 3}
LATENTS = 9
ENTRIES = 4 * 4 * 6 * 5  # weights of the layer


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the file of a random generator."""
    random = np.random.RandomState(0)
    shapes = make_generator("dcgan", SIZES).weights
    params = jax.tree.map(
        lambda leaf: random.uniform(0.1, 0.6, leaf.shape).astype(np.float32), shapes
    )
    path = tmp_path_factory.mktemp("budget") / "generator.safetensors"
    write_generator(path, "dcgan", SIZES, params, {})
    return str(path)


def configure(generator: str, **changes: Any) -> Config:
    config = tiny.get_config("hessian")
    config.generator, config.layer, config.metric.name = generator, "conv1", "l2"
    config.latents.count, config.microbatch = LATENTS, 0
    config.update(changes)
    return config_lib.freeze(config)


def read(config: Config) -> tuple[Problem, np.ndarray]:
    problem = inputs.read_problem(config)
    return problem, inputs.draw_latents(config, problem.generator)


def fake(constant: int, slope: int, tried: list[int]) -> Callable[[int], Estimate]:
    """Returns an estimate of 7 GiB and a program that grows with the microbatch, in GiB."""

    def estimate(size: int) -> Estimate:
        tried.append(size)
        return Estimate(size, (constant + slope * size) * 2**30, (("weights", 7 * 2**30),))

    return estimate


@pytest.mark.parametrize("room", [8.5, 9, 11, 15.9, 16, 23, 24, 99])
@pytest.mark.parametrize(("constant", "slope"), [(0, 1), (1, 1)])
def test_largest_that_fits_is_chosen(constant: int, slope: int, room: float) -> None:
    """The first of 16, 8, 4, 2, 1 that fits, to the byte; few are compiled."""
    tried: list[int] = []
    if room < 7 + constant + slope:
        with pytest.raises(InputError, match=r"raise it with --config\.memory_gib=N or else$"):
            budget.choose(room, fake(constant, slope, tried), most=16, otherwise=" or else")
        assert tried[-1] == 1
    else:
        found = budget.choose(room, fake(constant, slope, tried), most=16, otherwise="")
        fitting = [size for size in (16, 8, 4, 2, 1) if 7 + constant + slope * size <= room]
        assert found.microbatch == tried[-1] == fitting[0]
    assert tried[0] == 16 and len(tried) <= (2 if constant == 0 else 3)


def test_estimate_grows_with_the_microbatch_and_is_the_same_again(generator: str) -> None:
    """And holds the solver's vectors, those of either solver."""
    config = configure(generator)
    problem, z = read(config)
    one, nine, again = (budget.estimate_spectrum(config, problem, z, size) for size in (1, 9, 9))
    assert nine == again and one.working < nine.working and one.total < nine.total
    assert f"{one.total / 2**30:.2f} GiB: Python and JAX" in str(one)
    assert dict(one.parts)["40 vectors"] == 4 * 40 * ENTRIES


@pytest.mark.parametrize("task", [budget.microbatch_of_spectrum, None])
def test_budget_below_a_single_latent_is_one_message(task: Any, generator: str) -> None:
    """The message gives the memory needed and its parts; also for plain images."""
    config = configure(generator, memory_gib=1e-6)
    problem, z = read(config)
    with pytest.raises(
        InputError,
        match=r"config.memory_gib: expected room for one latent at a time; got 1e-06 GiB, and a "
        r"run needs .* GiB: .*weights .* the largest program .*; raise it with --config.memory_",
    ):
        if task is None:
            budget.microbatch_of_images(config, problem)
        else:
            task(config, problem, z)


def test_number_of_the_config_is_taken_as_it_is(generator: str) -> None:
    """However little memory the budget states."""
    config = configure(generator, microbatch=3, memory_gib=1e-6)
    problem, z = read(config)
    assert budget.microbatch_of_spectrum(config, problem, z) == 3
    assert budget.microbatch_of_images(config, problem) == 3


def test_large_images_are_made_a_few_at_a_time(
    generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config gives an upper bound; at least one is made."""
    config = configure(generator, microbatch=1000)
    problem, z = read(config)
    height, width, _ = problem.generator.image_shape
    for pixels, count in ((5 * height * width + 1, 5), (height * width - 1, 1)):
        monkeypatch.setattr(budget, "_PIXELS_AT_ONCE", pixels)
        assert budget.microbatch_of_images(config, problem) == count
    assert budget.microbatch_of_spectrum(config, problem, z) == 1000


def test_run_with_a_chosen_microbatch_finds_the_same(
    generator: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result equals that of the same given microbatch; file and output name the choice."""
    config = configure(generator)
    room = budget.estimate_spectrum(config, *read(config), 4).total
    found = []
    for name, changes in (("chosen", {"memory_gib": room / 2**30}), ("given", {"microbatch": 9})):
        config = configure(generator, **changes)
        workdir = tmp_path / name
        workdir.mkdir()
        found.append(hessian.find(config, workdir, *read(config)))
    assert [directions.provenance["microbatch"] for directions in found] == ["4", "9"]
    chosen, given = (directions.measures["eigenvalue"] for directions in found)
    np.testing.assert_allclose(chosen, given, rtol=1e-4)
    said = capsys.readouterr().out
    assert "microbatch 4, chosen for" in said and said.count("chosen for") == 1
