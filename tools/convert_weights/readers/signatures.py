"""Tells by the first bytes what kind of file this is; nothing is read into, nothing executed."""

# The first pickle of an old PyTorch stream is this number, 0x1950a86a20f9469cfc6c.
TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_BYTES = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

ZIP = "zip archive"
TORCH_LEGACY = "PyTorch stream (before version 1.6)"
TORCH_TAR = "PyTorch tar archive (before version 0.2)"
PICKLE = "pickle"
SAFETENSORS = "safetensors"
NPY = "NumPy array"

# What is often found in place of a weight file, and the bytes it begins with.
_OTHERS = {
    b"<!DOCTYPE": "a web page, not the file behind it",
    b"<!doctype": "a web page, not the file behind it",
    b"<html": "a web page, not the file behind it",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to",
    b"\x1f\x8b": "a gzip archive, which must be unpacked first",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


def kind_of(data: bytes) -> str:
    """Returns one of the kinds named above, or words for a file that is none of them."""
    if not data:
        return "an empty file"
    if data.startswith(b"PK"):
        return ZIP
    if _LEGACY_BYTES in data[:32]:
        return TORCH_LEGACY
    if data.startswith(b"\x93NUMPY"):
        return NPY
    # A safetensors file begins with the length of its JSON header, eight bytes.
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return SAFETENSORS
    for beginning, words in _OTHERS.items():
        if data.startswith(beginning):
            return words
    if data[257:262] == b"ustar":
        return _kind_of_tar(data)
    # Protocols 2 to 5 begin with the opcode PROTO; older ones begin like text and end with STOP.
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLE
    if data[:1] in b"(]}c" and data.endswith(b"."):
        return PICKLE
    return "bytes of no known format"


def _kind_of_tar(data: bytes) -> str:
    # A member begins with its name, at a multiple of 512 bytes.
    names = {data[at : at + 100].rstrip(b"\0") for at in range(0, len(data), 512)}
    if {b"storages", b"tensors", b"pickle"} <= names:
        return TORCH_TAR
    return "a tar archive, which must be unpacked first"
