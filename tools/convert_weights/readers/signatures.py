"""Tells a file's kind by its first bytes; parses and executes nothing."""

import codecs
import re

# The first pickle of an old PyTorch stream is this number, 0x1950a86a20f9469cfc6c.
TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_BYTES = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

ZIP = "zip archive"
TORCH_LEGACY = "PyTorch stream (before version 1.6)"
TORCH_TAR = "PyTorch tar archive (before version 0.2)"
PICKLE = "pickle"
SAFETENSORS = "safetensors"
NPY = "NumPy array"

# Other kinds of files, by their first bytes.
_OTHERS = {
    b"\x1f\x8b": "a gzip archive, which must be unpacked first",
    b"BZh": "a bzip2 archive, which must be unpacked first",
    b"\xfd7zXZ": "an xz archive, which must be unpacked first",
    b"7z\xbc\xaf": "a 7z archive, which must be unpacked first",
    b"Rar!": "a RAR archive, which must be unpacked first",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF document",
}

# The beginnings of texts, after blanks and the byte-order mark.
_PAGE = re.compile(r"<(!doctype\s+html|html|head|body|script|title|meta|!--)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>\s*([^<]*?)\s*<", re.IGNORECASE)
_XML = re.compile(r"<(\?xml|[a-z])", re.IGNORECASE)
_CODE = re.compile(r"<(code|message)>\s*([^<]*?)\s*<", re.IGNORECASE)
_POINTER = "version https://git-lfs"
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_ASKS = re.compile(rb"[(\])}ldN]*c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n[(\])}ld0-9\x80-\xff]")
# Bytes of a text to search for its title.
_TEXT_BYTES = 4096
_QUOTED = 60
# The longest header of safetensors that the format's own library allows.
_MOST_HEADER_BYTES = 100_000_000


def kind_of(data: bytes) -> str:
    """Returns one of the kinds named above, or a description of a file of another kind.

    A truncated file keeps its kind; the reader of that kind reports the damage.
    """
    if not data:
        return "an empty file"
    if data.startswith(b"PK"):
        return ZIP
    if _LEGACY_BYTES in data[:32] or _is_cut_stream(data):
        return TORCH_LEGACY
    if data.startswith(b"\x93NUMPY"):
        return NPY
    # A safetensors file begins with the length of its JSON header, eight bytes.
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _MOST_HEADER_BYTES:
        return SAFETENSORS
    for beginning, words in _OTHERS.items():
        if data.startswith(beginning):
            return words
    if data[257:262] == b"ustar":
        return _kind_of_tar(data)
    # Protocols 2 to 5 begin with the opcode PROTO; older ones begin like text and end with STOP,
    # or begin with a reference to a name.
    if data[:1] == b"\x80" and data[1:2] <= b"\x05":
        return PICKLE
    if (data[:1] in b"(]}c" and data.endswith(b".")) or _ASKS.match(data):
        return PICKLE
    if not data.strip(b"\0"):
        return f"{len(data)} bytes of zeros, a download that was never filled"
    text = _text_of(data)
    return "bytes of no known format" if text is None else _kind_of_text(text)


def _is_cut_stream(data: bytes) -> bool:
    return 2 < len(data) < len(_LEGACY_BYTES) + 2 and (b"\x80\x02" + _LEGACY_BYTES).startswith(data)


def _text_of(data: bytes) -> str | None:
    """Returns the beginning of the file as text without surrounding blanks; None if not text."""
    beginning = data[:_TEXT_BYTES]
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            text = beginning[len(mark) :].decode(encoding, errors="replace")
            break
    else:
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
        except UnicodeDecodeError:
            # Old web pages have a national encoding; a tag at the beginning identifies them.
            text = beginning.decode("latin-1")
            if not _PAGE.match(text.lstrip()):
                return None
    text = text.lstrip("\ufeff").strip()
    return text if all(c.isprintable() or c.isspace() for c in text.replace("\ufffd", "")) else None


def _kind_of_text(text: str) -> str:
    if _PAGE.match(text):
        title = _TITLE.search(text)
        return f"a web page{_quoted(title and title[1])}, not the file behind it"
    if text.startswith(_POINTER):
        return "a Git LFS pointer, not the file it points to: fetch it with git lfs pull"
    if _XML.match(text):
        told = {match[1].lower(): match[2] for match in _CODE.finditer(text)}
        what = _quoted(told.get("code") or told.get("message"))
        return f"an XML answer of a server{what}, not the file behind it"
    if text.startswith(("{", "[")):
        return f"a JSON text{_quoted(text)}, no weights"
    return f"a text{_quoted(text)}, no weights" if text else "nothing but blanks"


def _quoted(text: str | None) -> str:
    """Returns the text in one line, shortened, in quotes after a blank; empty for no text."""
    words = " ".join((text or "").split())
    return f" {words[:_QUOTED] + '...' * (len(words) > _QUOTED)!r}" if words else ""


def _kind_of_tar(data: bytes) -> str:
    # A member begins with its name, at a multiple of 512 bytes.
    names = {data[at : at + 100].rstrip(b"\0") for at in range(0, len(data), 512)}
    if {b"storages", b"tensors", b"pickle"} <= names:
        return TORCH_TAR
    return "a tar archive, which must be unpacked first"
