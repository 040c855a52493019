"""Users' files of label maps: folders of PNG files, or an .npz.

A folder holds, in itself or below:

  NAME_labelIds.png and NAME_instanceIds.png     as Cityscapes names them
  a folder label or *_label, and inst or *_inst  as pix2pixHD does; files pair in alphabetical order
  other pictures                                 label maps alone; each label is one instance

An .npz holds `labels` [count, height, width] and, if it has them, `instances`. Maps of another size
are resized to the nearest pixel, as no label lies between two others.
"""

import dataclasses
import io
import pathlib
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from navigan_jax import faults
from navigan_jax.errors import InputError
from navigan_jax.generators.latents import Latents
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps

_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")  # without loss
_LABELS, _INSTANCES = "_labelIds", "_instanceIds"
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PIXELS = 2**26
_LARGEST = 2**24  # whole numbers up to here are exact in float32


@dataclasses.dataclass(frozen=True)
class _Pair:
    labels: pathlib.Path
    instances: pathlib.Path | None


def read_label_maps(path: str, space: LabelMaps, most: int) -> Latents:
    """Returns the first `most` label maps of a folder or an .npz.

    Raises: InputError, which names the file, if there are none or one does not fit the generator.
    """
    place = pathlib.Path(path)
    if place.is_dir():
        pairs = _pairs(place)
        maps = [_read_pair(pair, space) for pair in pairs[:most]]
        told = f"{path}: {len(pairs)} label map{'s' * (len(pairs) != 1)}"
        if not any(pair.instances for pair in pairs) and space.has_instances:
            told += " without instances: each label counts as one"
        return Latents("z", np.stack(maps), told)
    if place.suffix.lower() == ".npz" and place.is_file():
        return parse_label_maps(place.read_bytes(), path, space, most)
    raise InputError(
        f"{path}: expected a folder of label maps, or an .npz with labels [count, height, width]; "
        f"got {faults.found_at(place)}; check the path"
    )


def is_file_of_maps(data: bytes) -> bool:
    """Returns whether a file is a PNG, or an .npz with `labels`."""
    if data.startswith(_PNG):
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "labels.npy" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def parse_label_maps(data: bytes, name: str, space: LabelMaps, most: int) -> Latents:
    """Returns the first `most` label maps of an .npz, or the one of a PNG; `name`: in messages.

    Raises: InputError, which begins with the name, if the file does not fit the generator.
    """
    if data.startswith(_PNG):
        labels = _read_picture(io.BytesIO(data), name)
        maps = [_latent(labels, labels, space, name)]
    else:
        maps = _read_npz(io.BytesIO(data), name, space, most)
    return Latents("z", np.stack(maps), f"{name}: {len(maps)} label map{'s' * (len(maps) != 1)}")


def _pairs(folder: pathlib.Path) -> list[_Pair]:
    """Returns the files of each map, in alphabetical order."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _ENDINGS)
    named = [file for file in files if file.stem.endswith(_LABELS)]
    if named:
        twins = [
            file.with_name(f"{file.stem.removesuffix(_LABELS)}{_INSTANCES}{file.suffix}")
            for file in named
        ]
        return [
            _Pair(file, twin if twin.is_file() else None)
            for file, twin in zip(named, twins, strict=True)
        ]
    labels, instances = (
        [file for file in files if _is_kind(file.parent.name, kind)] for kind in ("label", "inst")
    )
    if labels:
        if instances and len(instances) != len(labels):
            raise InputError(
                f"{folder}: expected one instance map for each label map; got {len(labels)} label "
                f"maps and {len(instances)} instance maps; add or remove files"
            )
        both: Sequence[pathlib.Path | None] = instances or [None] * len(labels)
        return [_Pair(*pair) for pair in zip(labels, both, strict=True)]
    if not files:
        raise InputError(
            f"{folder}: expected label maps, such as NAME{_LABELS}.png with NAME{_INSTANCES}.png, "
            f"or folders label and inst; got no file {', '.join(_ENDINGS)}; check the folder"
        )
    return [_Pair(file, None) for file in files]


def _is_kind(name: str, kind: str) -> bool:
    return name == kind or name.endswith(f"_{kind}")


def _read_pair(pair: _Pair, space: LabelMaps) -> np.ndarray:
    labels = _read_picture(pair.labels, str(pair.labels))
    instances = labels
    if pair.instances is not None:
        instances = _read_picture(pair.instances, str(pair.instances))
    if instances.shape != labels.shape:
        raise InputError(
            f"{pair.instances}: expected {labels.shape[0]}x{labels.shape[1]} pixels, as in "
            f"{pair.labels}; got {instances.shape[0]}x{instances.shape[1]}; pair other files"
        )
    return _latent(labels, instances, space, str(pair.labels))


def _read_picture(file: pathlib.Path | BinaryIO, name: str) -> np.ndarray:
    """Returns the numbers of a picture with one channel, of 8, 16 or 32 bits."""
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} pixels")
            numbers = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{name}: expected a picture of at most {_MOST_PIXELS} pixels; got one that cannot be "
            f"read: {reason}; save it again as PNG"
        ) from error
    if numbers.ndim != 2 or numbers.dtype.kind not in "iub":
        raise InputError(
            f"{name}: expected one whole number for each pixel, the label; got an image of shape "
            f"{list(numbers.shape)} and type {numbers.dtype}; give label ids, not the colours of "
            "the labels"
        )
    return numbers


def _read_npz(file: BinaryIO, name: str, space: LabelMaps, most: int) -> list[np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("labels", "instances") if key in archive}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{name}: expected an .npz of whole numbers; got one that cannot be read; write it "
            "anew with numpy.savez"
        ) from error
    labels = arrays.get("labels")
    if labels is None or labels.ndim != 3 or labels.dtype.kind not in "iub" or not labels.size:
        shape = "none" if labels is None else f"{list(labels.shape)} of {labels.dtype}"
        raise InputError(
            f"{name}: expected whole numbers labels [count, height, width]; got {shape}; write it "
            "with numpy.savez(FILE, labels=..., instances=...)"
        )
    instances = arrays.get("instances", labels)
    if instances.shape != labels.shape or instances.dtype.kind not in "iub":
        raise InputError(
            f"{name}: expected whole numbers instances {list(labels.shape)}, as labels; got "
            f"{list(instances.shape)} of {instances.dtype}; correct the file"
        )
    return [
        _latent(labels[i], instances[i], space, f"{name}, map {i}")
        for i in range(min(most, len(labels)))
    ]


def _latent(labels: np.ndarray, instances: np.ndarray, space: LabelMaps, name: str) -> np.ndarray:
    """Returns one latent of the generator's size. Raises: InputError for unknown labels."""
    if (found := int(labels.max())) >= space.labels or int(labels.min()) < 0:
        wrong = found if found >= space.labels else int(labels.min())
        raise InputError(
            f"{name}: expected labels 0 to {space.labels - 1}, as the generator knows them; got "
            f"{wrong}; give label ids of the data set that it was trained on"
        )
    if int(instances.max()) > _LARGEST or int(instances.min()) < -_LARGEST:
        raise InputError(
            f"{name}: expected instance numbers up to {_LARGEST}; got {int(instances.max())}; "
            "number the instances anew"
        )
    rows, columns = (
        np.int64((np.arange(wanted) + 0.5) * size / wanted)
        for wanted, size in zip((space.height, space.width), labels.shape, strict=True)
    )
    kinds = (labels, instances) if space.has_instances else (labels,)
    return np.stack([np.float32(kind[np.ix_(rows, columns)]) for kind in kinds], axis=-1)
