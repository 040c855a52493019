"""Photographs that a config names: reading, placing, and the generator's size."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from navigan_jax import channels
from navigan_jax import config as config_lib
from navigan_jax.config import Config
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.inversion import photographs, placing
from navigan_jax.inversion.photographs import Photograph
from navigan_jax.inversion.placing import Place
from navigan_jax.tasks.workdirs import say

PLACES = ("centre", "box", "face")
_SMALLEST_SHARE = 4  # a place of less than a fourth of the generator's side is refused
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A part of a photograph. image: [height, width, channels] of the generator's size.

    number: of the face in the photograph; None if there is one part only.
    """

    photograph: Photograph
    place: Place
    image: np.ndarray
    number: int | None = None

    @property
    def label(self) -> str:
        """The photograph's name, with the number of the face if it has several."""
        name = pathlib.Path(self.photograph.name).name
        return name if self.number is None else f"{name} face {self.number}"

    @property
    def key(self) -> str:
        """A digest of the pixels that are used and of where they lie."""
        state = hashlib.sha256(self.photograph.sha256.encode())
        state.update(np.ascontiguousarray(self.place.corners).tobytes())
        return state.hexdigest()


def check(config: Config) -> None:
    """Checks keys of `config.place` against each other. Raises: InputError."""
    method, corners = config.place.method, config.place.box
    if method == "box":
        good = len(corners) == 4 and corners[0] < corners[2] and corners[1] < corners[3]
        if not good:
            raise InputError(
                "config.place.box: expected left, top, right and bottom in pixels; got "
                f"{tuple(corners)}; set it with --config.place.box='(10.0, 20.0, 522.0, 532.0)'"
            )
    elif corners:
        raise InputError(
            f"config.place.box: expected nothing with config.place.method={method}; got "
            f"{tuple(corners)}; leave it out, or set --config.place.method=box"
        )
    if method == "face" and config.place.landmarks is None:
        raise InputError(
            "config.place.landmarks: expected a JSON file with the eyes and the corners of the "
            "mouth of each face; got nothing; set --config.place.landmarks=FILE, see "
            "docs/photographs.md, or cut the middle out with --config.place.method=centre"
        )


def read_targets(config: Config, generator: Generator) -> list[Target]:
    """Returns the parts of all photographs; one that cannot be used is told and left out.

    Raises: InputError if none can be used.
    """
    places = config_lib.split_paths(config.images)
    landmarks = None
    if config.place.method == "face":
        landmarks = placing.read_landmarks(config.place.landmarks)
    targets: list[Target] = []
    faults: list[str] = []
    for path in photographs.find_photographs(places):
        try:
            photograph = photographs.read_photograph(path)
            found = _targets_of(config, photograph, generator, landmarks)
        except InputError as error:
            faults.append(str(error))
            continue
        if photograph.told:
            say(f"{path}: {photograph.told}")
        targets += found
    if faults and targets:
        say("left out:")
        for fault in faults:
            say(f"  {fault}")
    if not targets:
        raise InputError(
            "config.images: expected a photograph that can be used; got none:\n  "
            + "\n  ".join(faults)
        )
    seen: dict[str, Target] = {}
    for target in targets:
        seen.setdefault(target.key, target)
    return list(seen.values())


def _targets_of(
    config: Config,
    photograph: Photograph,
    generator: Generator,
    landmarks: Mapping[str, Sequence[np.ndarray]] | None,
) -> list[Target]:
    height, width, count = generator.image_shape
    name, pixels = photograph.name, photograph.pixels
    if config.place.method == "centre":
        places = [placing.centre(pixels.shape[0], pixels.shape[1], width / height)]
    elif config.place.method == "box":
        places = [placing.box(*config.place.box)]
    else:
        places = _faces(config, name, landmarks or {})
    numbered = len(places) > 1
    found = []
    for number, place in enumerate(places):
        placing.require_place(place, pixels, name)
        tall, wide = place.size
        if tall * _SMALLEST_SHARE < height or wide * _SMALLEST_SHARE < width:
            raise InputError(
                f"{name}: expected a place of {height // _SMALLEST_SHARE} pixels or more along a "
                f"side, for images of {generator.size_text}; got {round(wide)}x{round(tall)}; "
                "give a larger picture"
            )
        image = placing.crop(pixels, place, height, width)
        image = fit_channels(np.clip(image, -1, 1), count)
        found.append(Target(photograph, place, image, number if numbered else None))
    return found


def _faces(config: Config, name: str, landmarks: Mapping[str, Sequence[np.ndarray]]) -> list[Place]:
    faces = landmarks.get(name, landmarks.get(pathlib.Path(name).name, ()))
    if not faces:
        raise InputError(
            f"{name}: expected a face in {config.place.landmarks}; got none; add it there, or cut "
            "the middle out with --config.place.method=centre"
        )
    if config.place.face >= len(faces):
        raise InputError(
            f"{name}: expected a face of number {config.place.face}; got {len(faces)} faces in "
            f"{config.place.landmarks}; choose one with --config.place.face=N, or all with -1"
        )
    chosen = faces if config.place.face < 0 else [faces[config.place.face]]
    try:
        return [placing.align_face(face) for face in chosen]
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def fit_channels(image: np.ndarray, count: int) -> np.ndarray:
    """Returns an RGB image with the channels of a generator: grey, or with an opaque alpha."""
    colours = image if channels.MEANINGS[count].startswith("RGB") else (image @ _LUMA)[..., None]
    if not channels.has_alpha(count):
        return colours
    return np.concatenate([colours, np.ones_like(colours[..., :1])], axis=-1)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Returns an image of a generator as RGB, over white where it is transparent."""
    count = image.shape[-1]
    seen = np.asarray(channels.over(image, channels.WHITE)) if channels.has_alpha(count) else image
    return np.broadcast_to(seen, (*seen.shape[:-1], 3))
