"""Every command of README and docs/ runs as it stands, at tiny size and without a network."""

import pathlib
import re
from collections.abc import Iterator, Sequence

import pytest

from navigan_jax import directions as directions_lib
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import read_generator
from tests.docs import running
from tests.docs.reading import PAGES, ROOT, blocks, commands, commands_of
from tests.docs.world import make_world

pytestmark = pytest.mark.golden

# Commands, or the words they begin with, that are only looked at: {words: why they are not run}.
NOT_RUN = {
    "make test": "it is running",
    "make format": "changes the repository",
    ". .venv/bin/activate": "makes an environment the current one",
    "pip install": "needs a network",
    "pip-compile": "needs a network",
    "ssh": "needs a server",
    "python -m pytest": "would be these tests",
    "python -m docs.screenshots": "needs Chromium and the demo at full size",
    "python -m benchmarks.spectrum": "takes minutes",
    "python -m benchmarks.pipeline": "takes minutes",
    "python -m benchmarks.cars.experiment": "takes half an hour",
    "python -m benchmarks.cars.report": "reads what the experiment has found",
    "python -m tools.convert_weights stylegan2 --all-known": "downloads 19 GB; has its own test",
    "python -m navigan_jax.main --config=configs/hessian.py --workdir=runs/pod": "wants a pod",
}
# Runs, by their workdir, that are checked and begun, and get made-up results: {workdir: why}.
BEGUN = {
    "runs/paper": "LPIPS takes long to compile",
    "runs/ffhq": "StyleGAN2 takes long to compile",
    "runs/spectrum6": "another layer is other programs to compile",
    "runs/stronger": "as the demo",
    "runs/small": "another microbatch is other programs to compile",
    "runs/discover-demo/spectrum": "as runs/spectrum6",
    "runs/discover-demo/trained": "a training takes long to compile",
    "runs/biggan": "likewise",
    "runs/biggan_deep": "likewise",
    "runs/street": "likewise",
    "runs/sngan": "likewise",
    "runs/hybrid": "likewise",
    "runs/discover": "likewise",
    "runs/compare/hybrid": "likewise",
    "runs/compare/spectrum": "likewise",
    "runs/compare/random": "likewise",
    "runs/compare/svd": "likewise",
}


def listed(command: Sequence[str]) -> str | None:
    """Returns the words of NOT_RUN that a command begins with, if any."""
    begins = (words for words in NOT_RUN if tuple(words.split()) == command[: len(words.split())])
    return next(begins, None)


def workdir_of(command: Sequence[str]) -> str | None:
    """Returns the workdir that a command names, if any."""
    named = (word.partition("=")[2] for word in command if word.startswith("--workdir="))
    return next(named, None)


def named_file(text: str) -> str | None:
    """Returns the name of a file that a block of Python shows: its first line is `# NAME.py`."""
    first = text.partition("\n")[0]
    return first.removeprefix("# ") if re.fullmatch(r"# \w+\.py", first) else None


class World:
    """A folder where the demos were made; each command runs there once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.done: set[tuple[str, ...]] = set()
        self.run(("make", "demo"))
        self.run(("make", "demo-faces"))

    def run(self, command: tuple[str, ...]) -> None:
        """Runs a command unless it was run; looks only at one of NOT_RUN."""
        if command in self.done:
            return
        self.done.add(command)
        match command:
            case ("make", *targets):
                for target in targets:
                    made = running.made_by(target)
                    if not listed(command):
                        for part in made:
                            self.run(part)
            case ("python", "-m", "navigan_jax.main", *arguments) if listed(command):
                running.parse(arguments, self.patch)
            case ("python", "-m", module, *_) if listed(command):
                assert (
                    module == "pytest"
                    or (ROOT / f"{module.replace('.', '/')}").exists()
                    or (ROOT / f"{module.replace('.', '/')}.py").is_file()
                )
            case ("python", "-m", "navigan_jax.main", *arguments) if workdir_of(command) in BEGUN:
                running.begin_task(arguments, self.patch)
            case ("python", "-m", "navigan_jax.main", *arguments):
                running.run_task(arguments, self.patch)
            case ("python", "-m", "tools.convert_weights", *arguments):
                running.convert(arguments)
            case ("python", "-m", module, *arguments):
                running.run_module(module, arguments, self.patch)
            case _:
                assert listed(command), f"{command}: no known command; list it with a reason"

    def recipe(self, text: str) -> None:
        """Writes recipe.json, with the digests that `inspect` tells."""
        _, params = read_generator("cars")
        digest = params_lib.digest(params)
        found = directions_lib.read_directions("runs/demo/directions.safetensors", digest=digest)
        text = text.replace("DIGEST_OF_GENERATOR", digest)
        text = text.replace("DIGEST_OF_DIRECTIONS", directions_lib.digest(found))
        pathlib.Path("recipe.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Returns the world of all pages."""
    with pytest.MonkeyPatch.context() as patch:
        make_world(tmp_path_factory.mktemp("world"), patch)
        yield World(patch)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run_in_order(page: str, world: World) -> None:
    """Shell commands, Python and recipes run; files that a page shows as output are there."""
    names: dict[str, object] = {}
    for block in blocks(page):
        match block.language:
            case "sh":
                for command in commands(block.text):
                    world.run(command)
            case "python" if file := named_file(block.text):
                pathlib.Path(file).write_text(block.text, encoding="utf-8")
            case "python":
                exec(compile(block.text, page, "exec"), names)
            case "json":
                world.recipe(block.text)
            case "text":
                for word in block.text.split():
                    if word.startswith("runs/"):
                        assert pathlib.Path(word.rstrip(":,")).exists(), word
            case _:
                pytest.fail(f"{page}: a block needs its language: sh, python, json or text")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("make dmo", "No rule to make target"),
        ("navigan find", "no known command"),
        ("python -m tools.convert_weights inspekt recipe.json", "exit status 2"),
        (
            "python -m navigan_jax.main --config=configs/maps.py --workdir=runs/x --config.a=1",
            "'a'",
        ),
        (
            "python -m navigan_jax.main --config=configs/hessian.py --workdir=runs/small "
            "--config.generator=runs/weights/faces.safetensors --config.layer=main.4",
            "'main.4'",
        ),
    ],
)
def test_stale_command_is_noticed(line: str, message: str, world: World) -> None:
    """Unknown targets, programs, commands and keys, and layers that are not there."""
    (command,) = commands(line)
    with pytest.raises((AssertionError, InputError), match=message):
        world.run(command)


def test_lists_of_what_is_not_run_are_exact() -> None:
    """Every entry is on a page, so the lists name nothing that is gone."""
    found = [command for page in PAGES for command in commands_of(page)]
    assert {listed(command) for command in found} - {None} == set(NOT_RUN)
    for _, *targets in [command for command in found if command[0] == "make"]:
        for target in targets:
            found += running.made_by(target)
    assert BEGUN.keys() <= {workdir_of(command) for command in found}
