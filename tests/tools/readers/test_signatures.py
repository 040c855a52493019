"""Files that are no weight files are named, with or without leading bytes."""

import pytest

from tools.convert_weights.readers import signatures
from tools.convert_weights.readers.signatures import kind_of

PAGE = "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
NO_FILE = "not the file behind it"

OTHERS = {
    b"<html>": f"a web page, {NO_FILE}",
    PAGE.encode(): f"a web page 'Google Drive - Virus scan warning', {NO_FILE}",
    b"\n\r\n \t" + PAGE.encode(): f"a web page 'Google Drive - Virus scan warning', {NO_FILE}",
    b"\xef\xbb\xbf" + PAGE.encode(): f"a web page 'Google Drive - Virus scan warning', {NO_FILE}",
    PAGE.encode("utf-16"): f"a web page 'Google Drive - Virus scan warning', {NO_FILE}",
    b"<!-- saved --><HTML>": f"a web page, {NO_FILE}",
    b"<html><title>Acc\xe8s</title>": f"a web page 'Accès', {NO_FILE}",
    b"<html><title>\n  Too\n many </title>": f"a web page 'Too many', {NO_FILE}",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>No</Message></Error>": (
        f"an XML answer of a server 'AccessDenied', {NO_FILE}"
    ),
    b"\n<Error><Message>No such key</Message></Error>": (
        f"an XML answer of a server 'No such key', {NO_FILE}"
    ),
    b' {"error": "Repository not found"}': (
        'a JSON text \'{"error": "Repository not found"}\', no weights'
    ),
    b"Entry not found": "a text 'Entry not found', no weights",
    b"x" * 5000: f"a text '{'x' * 60}...', no weights",
    "Zugriff verweigert: Überlastung".encode(): (
        "a text 'Zugriff verweigert: Überlastung', no weights"
    ),
    b"\nversion https://git-lfs.github.com/spec/v1\noid sha256:0": (
        "a Git LFS pointer, not the file it points to: fetch it with git lfs pull"
    ),
    b"\0" * 1000: "1000 bytes of zeros, a download that was never filled",
    b" \n": "nothing but blanks",
    b"": "an empty file",
    b"\x1f\x8b\x08": "a gzip archive, which must be unpacked first",
    b"\x81\xff\x02rest": "bytes of no known format",
}


@pytest.mark.parametrize("data", OTHERS, ids=range(len(OTHERS)))
def test_what_stands_in_place_of_a_file_is_told(data: bytes) -> None:
    """Pages, answers of servers, texts, pointers, archives to be unpacked, nothing at all."""
    assert kind_of(data) == OTHERS[data]


KNOWN = {
    b"PK\x03\x04": signatures.ZIP,
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": signatures.TORCH_LEGACY,
    b"\x80\x02\x8a\nl\xfc": signatures.TORCH_LEGACY,
    b"\x80\x04\x95": signatures.PICKLE,
    b"\x80": signatures.PICKLE,
    b"(lp0\n.": signatures.PICKLE,
    b"cos\nsystem\n(S'touch x'\ntR": signatures.PICKLE,
    b"\x93NUMPY\1": signatures.NPY,
    b"\x40\0\0\0\0\0\0\0{": signatures.SAFETENSORS,
}


@pytest.mark.parametrize("data", KNOWN, ids=range(len(KNOWN)))
def test_file_that_was_cut_short_is_still_of_its_kind(data: bytes) -> None:
    """Its reader then reports it as incomplete or hostile."""
    assert kind_of(data) == KNOWN[data]


def test_text_that_looks_like_a_name_is_no_pickle() -> None:
    """Two words in two lines are a text, unless opcodes follow them."""
    assert kind_of(b"code\nhello\nworld").startswith("a text")
