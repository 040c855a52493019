"""Reads the pickles of NVIDIA's StyleGAN2 without executing the Python source in them.

1. PyTorch (stylegan2-ada-pytorch, stylegan3): a dict with G, D, G_ema; each module is a call of
   torch_utils.persistence._reconstruct_persistent_obj with its class name, source and state, and
   each tensor is a whole PyTorch stream as bytes.
2. TensorFlow (stylegan2, stylegan2-ada): a tuple (G, D, Gs) of dnnlib.tflib.network.Network; the
   class was tfutil.Network in the program of progressive growing.

Both become `Record`s. The record of a module has its class name and its state; the source text is
dropped.
"""

from typing import Any

from tools.convert_weights.readers.stand_ins import allow, allow_record
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.torch_file import read_stream
from tools.convert_weights.readers.torch_names import TORCH_NAMES, Storage

# A stream with one storage has about 40 opcodes.
_STORAGE_OPCODES = 200

TF_NETWORK = "dnnlib.tflib.network.Network"


def _load_from_bytes(raw: Any) -> Storage:
    """Returns a storage inside a pickle: a PyTorch stream that must not contain another one."""
    if not isinstance(raw, bytes):
        raise TypeError("expected the bytes of a storage")
    storage = read_stream(raw, "storage", max_opcodes=_STORAGE_OPCODES)
    if not isinstance(storage, Storage):
        raise TypeError("expected a storage, got another object")
    return storage


def _module(meta: Any) -> Record:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise ValueError("expected the description of a module")
    class_name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(class_name, str) or not isinstance(state, dict):
        raise TypeError("expected a module with class name and state")
    return Record(class_name, (), state)


def _easy_dict() -> dict[Any, Any]:
    return {}


NVIDIA_NAMES = (
    TORCH_NAMES
    | allow(["torch.storage"], "_load_from_bytes", _load_from_bytes)
    | allow(["torch_utils.persistence"], "_reconstruct_persistent_obj", _module)
    | allow(["dnnlib.util", "dnnlib"], "EasyDict", _easy_dict)
    | allow_record(["dnnlib.tflib.network", "tfutil"], "Network")
)


def networks_in(content: Any) -> dict[str, Record]:
    """Returns the networks in a pickle's object by name; none if it is another object."""
    if isinstance(content, dict) and isinstance(content.get("G_ema"), Record):
        return {name: value for name, value in content.items() if isinstance(value, Record)}
    if isinstance(content, tuple) and len(content) == 3 and all(map(is_tf_network, content)):
        return dict(zip(("G", "D", "Gs"), content, strict=True))
    return {}


def is_tf_network(value: Any) -> bool:
    """Whether the value is a record of a TensorFlow network."""
    return isinstance(value, Record) and value.name == TF_NETWORK
