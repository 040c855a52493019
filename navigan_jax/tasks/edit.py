"""The task `edit`: renders images and videos of a recipe, bit for bit as in the viewer."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from navigan_jax import checkpoints, devices
from navigan_jax import config as config_lib
from navigan_jax import directions as directions_lib
from navigan_jax import inverted as inverted_lib
from navigan_jax import params as params_lib
from navigan_jax.array_types import Params
from navigan_jax.config import Config
from navigan_jax.directions import Directions, read_fitting
from navigan_jax.editing import recipe as recipe_lib
from navigan_jax.editing import recipe_files, rendering
from navigan_jax.editing.edit import shrink
from navigan_jax.editing.recipe import Photo, Recipe, Video
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.latents import spaces_of
from navigan_jax.inversion import placing
from navigan_jax.inversion.photographs import read_photograph
from navigan_jax.inversion.placing import Place
from navigan_jax.inverted import Inverted
from navigan_jax.progress import Progress
from navigan_jax.showcase import base, pictures, video
from navigan_jax.tasks import inputs
from navigan_jax.tasks.photographs import to_rgb
from navigan_jax.tasks.settings import Settings
from navigan_jax.tasks.workdirs import say, say_written

SETTINGS = inputs.SYNTHESIS | Settings(
    {
        "task": str,
        "compilation_cache": bool,
        "distributed": bool,
        "generator": str,
        "recipe": str,
        "directions": str | None,
        "photographs": str | None,
        "any_weights": bool,
    }
)


def run(config: Config, workdir: pathlib.Path) -> None:
    """Writes edit_NNN.png and original_NNN.png of each sample, and the recipe, to the workdir.

    If the recipe has a video, writes video.mp4 and video.gif too.
    """
    SETTINGS.check(config)
    recipe = recipe_files.read_recipe(config.recipe)
    generator, params, synthesis = inputs.read_set_generator(config, recipe.synthesis)
    is_own = checkpoints.is_same_file(config.recipe, workdir / "recipe.json")
    if is_own and synthesis != recipe.synthesis:
        raise InputError(
            f"{config.recipe}: expected the recipe's own synthesis keys, as this run would "
            "overwrite the recipe; got others in config.synthesis; choose another --workdir"
        )
    recipe = dataclasses.replace(recipe, synthesis=synthesis)
    digest = params_lib.digest(params)
    directions = _read_all(config, recipe, params)
    found = _read_photographs(config, recipe, generator, params)
    try:
        rendering.check(recipe, generator, digest, directions, found)
    except InputError as error:
        raise InputError(f"{config.recipe}: {recipe_files.without_place(error)}") from error
    params = params_lib.to_device(params)
    written = {"recipe.json": "the recipe of these images"}
    if not is_own:
        recipe_files.write_recipe(workdir / "recipe.json", recipe)
    for name, one in (("edit", recipe), ("original", recipe.original())):
        images = rendering.render(one, generator, params, directions, photographs=found)
        for number, image in enumerate(images):
            path = workdir / f"{name}_{number:03}.png"
            enlarged = image.repeat(recipe.enlarge, axis=0).repeat(recipe.enlarge, axis=1)
            pictures.write_png(path, enlarged)
        written |= _paste_back(workdir, name, recipe, images, found)
        count = len(images)
        what = f"the {'edited' if name == 'edit' else 'unchanged'} images, {count} in all"
        written[f"{name}_000.png"] = what
    if recipe.video is not None:
        _write_videos(workdir, recipe, recipe.video, generator, params, directions, found)
        written |= {"video.mp4": "from one end of the edit to the other", "video.gif": "the same"}
    say_written(workdir, written)


def _read_all(config: Config, recipe: Recipe, params: Params) -> Mapping[str, Directions]:
    """Returns the directions of the recipe by their digests; see `_paths`."""
    paths = _paths(config, "directions", recipe_lib.files_of(recipe))
    digest, any_weights = params_lib.digest(params), config.any_weights
    found_directions = [
        read_fitting(path, params, digest=digest, any_weights=any_weights) for path in paths
    ]
    return {directions_lib.digest(one): one for one in found_directions}


def _paths(config: Config, key: str, names: Sequence[str]) -> list[pathlib.Path]:
    """Returns the files of a key if it is set, else those that the recipe names.

    These are seen from the current folder, then from the recipe's folder, then by bare name beside
    the recipe.
    """
    folder = pathlib.Path(config.recipe).parent
    if config[key] is not None:
        return [pathlib.Path(name) for name in config_lib.split_paths(config[key])]
    paths = []
    for name in names:
        places = [pathlib.Path(name), folder / name, folder / pathlib.Path(name).name]
        found = [place for place in places if place.is_file()]
        if not found:
            raise InputError(
                f"{config.recipe}: expected its {key} in {name}; got no such file there nor "
                f"beside the recipe; give the file with --config.{key}=FILE"
            )
        paths.append(found[0])
    return paths


def _read_photographs(
    config: Config, recipe: Recipe, generator: Generator, params: Params
) -> Mapping[str, Inverted]:
    """Returns the photographs of the recipe by their digests; see `_paths`."""
    named = [photo.file for photo in recipe_lib.photographs_of(recipe) if photo.file]
    paths = _paths(config, "photographs", list(dict.fromkeys(named)))
    digest = None if config.any_weights else params_lib.digest(params)
    shapes = spaces_of(generator).shapes
    found = [inverted_lib.read_fitting(path, params, shapes, digest=digest) for path in paths]
    return {inverted_lib.digest(one): one for one in found}


def _paste_back(
    workdir: pathlib.Path,
    name: str,
    recipe: Recipe,
    images: np.ndarray,
    found: Mapping[str, Inverted],
) -> dict[str, str]:
    """Pastes images of photographs back where these are still there, and returns what it wrote."""
    written = {}
    for number, sample in enumerate(recipe.samples):
        if not isinstance(sample, Photo):
            continue
        one = found[sample.photographs]
        path = pathlib.Path(one.names[sample.index])
        try:
            photograph = read_photograph(path)
        except InputError as error:
            say(f"not pasted back: {error}")
            continue
        if photograph.sha256 != one.sha256[sample.index]:
            say(f"not pasted back: {path} is another picture than the one that was inverted")
            continue
        place = Place(one.corners[sample.index])
        full = placing.paste_back(photograph.pixels, place, to_rgb(images[number]))
        file = f"{name}_{number:03}_full.png"
        pictures.write_png(workdir / file, full)
        written[file] = f"pasted back into {path.name}"
    return written


def _write_videos(
    workdir: pathlib.Path,
    recipe: Recipe,
    settings: Video,
    generator: Generator,
    params: Params,
    directions: Mapping[str, Directions],
    found: Mapping[str, Inverted],
) -> None:
    frames = max(2, round(settings.seconds * settings.frames_per_second))
    factors, order = video.plan_path(
        settings.start,
        settings.stop,
        frames=frames,
        easing=settings.easing,
        returns=settings.returns,
    )
    images = []
    with Progress(
        "video", len(factors), unit="shifts", is_main=devices.is_main_process()
    ) as progress:
        for factor in factors:
            scaled = recipe.scaled(float(factor))
            whole = rendering.render(scaled, generator, params, directions, photographs=found)
            images.append(shrink(whole, 2 * video.LARGEST_CELL))  # all frames are in memory at once
            progress.advance()
    captions = video.describe_factors(factors)
    strip = video.Strip(_title(recipe), np.stack(images), captions)
    for suffix in video.SUFFIXES:
        video.write_video(
            workdir / f"video{suffix}",
            [strip],
            factors,
            order,
            frames_per_second=settings.frames_per_second,
            source=_source(recipe),
        )


def _title(recipe: Recipe) -> str:
    names = [move.name or f"direction {move.index}" for move in recipe.moves]
    return " + ".join(names) or "original"


def _source(recipe: Recipe) -> str:
    shifts = [
        f"{move.name or f'direction {move.index}'}: t = {base.format_number(move.shift)}"
        for move in recipe.moves
    ]
    return "   ".join(shifts)
