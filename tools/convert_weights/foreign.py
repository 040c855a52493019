"""Opens a file of another program, in any of the known formats.

These are PyTorch's archives and streams, pickles of NVIDIA, safetensors, NumPy's archives and
arrays, and any of these inside a wheel or a source archive of a Python package.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from navigan_jax.errors import InputError
from tools.convert_weights.networks.base import Foreign
from tools.convert_weights.readers import sdist, signatures
from tools.convert_weights.readers.archive import Archive
from tools.convert_weights.readers.npy_objects import read_any_npy, read_any_npz
from tools.convert_weights.readers.npz import is_npz
from tools.convert_weights.readers.nvidia_file import NVIDIA_NAMES
from tools.convert_weights.readers.places import Places
from tools.convert_weights.readers.safetensors_file import read_safetensors
from tools.convert_weights.readers.source_map import make_source_map
from tools.convert_weights.readers.structure import Found
from tools.convert_weights.readers.torch_file import read_bytes, read_torch_bytes
from tools.convert_weights.readers.unpickle import read_pickle
from tools.convert_weights.readers.wheel import is_wheel, read_member

WEIGHTS = r".+\.(tar|pth|pt|ckpt|pkl|npz|safetensors)"

_ALLOWED = (
    "PyTorch files (.pt, .pth, .ckpt), pickles of NVIDIA (.pkl), safetensors, NumPy archives "
    "(.npz), wheels and source archives (.tar.gz) that hold one of these"
)


def read_foreign(path: str | os.PathLike[str], member: str = WEIGHTS) -> Foreign:
    """Returns the content of the file at `path`.

    member: a pattern for the name of the file inside a wheel or source archive.

    Raises: InputError if the file is missing, damaged, hostile or of no known format.
    """
    data, name = read_bytes(path), str(path)
    label = os.path.basename(name)
    origin = {"file": label, "sha256": hashlib.sha256(data).hexdigest()}
    is_source = sdist.is_gzip(data)
    if is_source or is_wheel(data, name):
        read = sdist.read_member if is_source else read_member
        inside, data = read(data, name, member)
        label, name = f"{inside} of {label}", f"{name}: {inside}"
        origin |= {"member": inside, "member_sha256": hashlib.sha256(data).hexdigest()}
    places = Places(data)
    content = _content(data, name, places)

    def map_of(chosen: str, networks: Mapping[str, Mapping[str, Found]]) -> Mapping[str, Any]:
        return make_source_map(label, data, places, chosen, networks).to_json()

    return Foreign(name, content, origin, map_of)


def _content(data: bytes, name: str, places: Places) -> Any:
    kind = signatures.kind_of(data)
    if kind == signatures.ZIP and is_npz(archive := Archive(data, name)):
        return read_any_npz(archive, name)
    if kind in (signatures.ZIP, signatures.TORCH_LEGACY, signatures.TORCH_TAR):
        return read_torch_bytes(data, name, places=places)
    if kind == signatures.PICKLE:
        return read_pickle(data, NVIDIA_NAMES, name=name, places=places)[0]
    if kind == signatures.SAFETENSORS:
        return read_safetensors(data, name)
    if kind == signatures.NPY:
        return read_any_npy(data, name)
    raise InputError(
        f"{name}: expected a weight file; got {kind}; allowed: {_ALLOWED}; see what the file is "
        "with: python -m tools.convert_weights inspect FILE"
    )
