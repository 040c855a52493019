"""The page is self-contained, runs no text as code, shows the frames and stays small."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from navigan_jax.errors import InputError
from navigan_jax.showcase import base, gallery

Make = Callable[..., base.Showcase]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{data}}\u2028"


class Page(html.parser.HTMLParser):
    """The tags, and the text by element, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.append((self.tags[-1][0], data))

    def data(self) -> dict[str, Any]:
        blocks = [text for tag, text in self.texts if tag == "script"]
        return json.loads(blocks[0])


def _frames(page: Page) -> np.ndarray:
    """Returns the frames that the script would cut out of the sheets, as bytes."""
    data = page.data()
    height, width = data["height"], data["width"]
    steps, samples = len(data["fractions"]), data["samples"]
    sheets = []
    for direction in data["directions"]:
        with Image.open(io.BytesIO(base64.b64decode(direction["sheet"]))) as image:
            sheet = np.asarray(image)
        assert sheet.shape == (samples * height, steps * width, 3)
        sheets.append(sheet.reshape(samples, height, steps, width, 3).swapaxes(1, 2))
    return np.stack(sheets)


@pytest.mark.parametrize(
    ("height", "width", "channels"),
    [(64, 64, 3), (23, 37, 3), (28, 28, 1), (64, 64, 2), (64, 64, 4)],
)
def test_sheets_decode_back(make_showcase: Make, height: int, width: int, channels: int) -> None:
    """Every frame is in its own cell, up to the error of the JPEG quality.

    The frames differ by 50 or more from each other, so a swapped cell would be seen.
    """
    showcase = make_showcase(height=height, width=width, channels=channels)
    decoded = _frames(Page(gallery.build_gallery(showcase))).astype(np.float64)
    expected = base.to_rgb(showcase.frames)
    assert np.abs(decoded - expected).mean(axis=(3, 4, 5)).max() < 4
    swapped = np.abs(decoded - expected[:, ::-1]).mean(axis=(3, 4, 5))
    assert swapped[:, 0].max() > 50


def _suggesting(showcase: base.Showcase, name: str) -> base.Showcase:
    records = (dataclasses.replace(one, suggestion=name) for one in showcase.directions)
    return dataclasses.replace(showcase, directions=tuple(records))


def test_data_tells_the_records(make_showcase: Make) -> None:
    showcase = _suggesting(make_showcase(steps=5, names={1: "smile"}), "wheel radius +")
    data = Page(gallery.build_gallery(showcase)).data()
    assert data["fractions"] == [-1, -0.5, 0, 0.5, 1]
    assert data["fractionNames"][2] == "original"
    for direction, record in zip(data["directions"], showcase.directions, strict=True):
        assert direction["index"] == record.index
        assert direction["suggestion"] == record.suggestion
        assert direction["eigenvalue"] == record.measures["eigenvalue"]
        assert direction["scale"] == max(record.ends)
        assert direction["texts"]["residual"] == base.format_number(record.measures["residual"])
        assert len(direction["shifts"]) == 5 and direction["shifts"][2] == "0"


def test_cards_rest_at_the_end_where_images_change_most(make_showcase: Make) -> None:
    """The end is the first or the last of the stored steps, for either sign of the direction."""
    showcase = make_showcase(steps=5)
    original = showcase.frames[:, :, 2:3]
    growing = np.array([-0.3, -0.2, 0, 0.05, 0.1], np.float32).reshape(5, 1, 1, 1)
    frames = np.stack([original[0] / 2 + growing, original[1] / 2 + growing[::-1]])
    data = Page(gallery.build_gallery(dataclasses.replace(showcase, frames=frames))).data()
    assert [direction["strongest"] for direction in data["directions"]] == [0, 4]


def test_unknown_numbers_are_null(make_showcase: Make) -> None:
    data = Page(gallery.build_gallery(make_showcase(eigenvalue=math.nan))).data()
    assert data["directions"][0]["eigenvalue"] is None
    assert data["directions"][0]["texts"]["eigenvalue"] == "–"


def test_page_refers_to_nothing_outside(make_showcase: Make) -> None:
    """No tag loads anything, the policy forbids it, and the only address is a namespace."""
    text = gallery.build_gallery(make_showcase())
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "action", "poster", "data", "xlink:href"):
            assert name not in attributes
        assert (attributes.get("href") or "data:").startswith("data:")
        assert tag not in {"iframe", "object", "embed", "base", "form"}
    assert set(re.findall(r"\w+://[^\"' )]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text and "url(" not in text
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy and "img-src data:" in policy
    assert "unsafe" not in policy and "http" not in policy


def test_policy_admits_this_script_and_style_alone(make_showcase: Make) -> None:
    text = gallery.build_gallery(make_showcase())
    for kind in ("script", "style"):
        body = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in text


def test_no_text_becomes_markup(make_showcase: Make) -> None:
    """Hostile names add no tag, and the page shows them unchanged."""
    plain = make_showcase(names={0: "a", 1: "b"}, provenance={"layer": "c", "note": "d"})
    name = EVIL.replace("\u2028", "")  # a name is one line
    evil = make_showcase(names={0: name, 1: name}, provenance={"layer": EVIL, "note": EVIL})
    evil = _suggesting(evil, name)
    pages = [Page(gallery.build_gallery(showcase)) for showcase in (plain, evil)]
    assert [tag for tag, _ in pages[0].tags] == [tag for tag, _ in pages[1].tags]
    assert pages[1].data()["directions"][0]["suggestion"] == name
    block = next(text for tag, text in pages[1].texts if tag == "script")
    assert not set("<>&") & set(block)
    title = "".join(text for tag, text in pages[1].texts if tag == "title")
    assert title.startswith(f"Directions of {EVIL}\n")


def test_provenance_is_printed(make_showcase: Make) -> None:
    texts = [
        text for tag, text in Page(gallery.build_gallery(make_showcase())).texts if tag == "dd"
    ]
    for value in ("conv2/kernel", "lpips", "512", "Lanczos", "0", "3f9a0c1b"):
        assert value in texts


@pytest.mark.parametrize(
    "shape",
    [
        (64, 4, 11, 64, 64, 3),
        (64, 4, 11, 256, 256, 3),
        (2, 2, 41, 1024, 512, 3),
        (1, 1, 3, 1, 1, 1),
    ],
)
def test_encodings_go_from_best_to_smallest(shape: tuple[int, ...]) -> None:
    """All fit the format and the memory and keep the original; none is larger than the last."""
    encodings = list(gallery.list_encodings(shape))
    assert encodings and len(set(encodings)) == len(encodings)
    assert encodings[0].quality > encodings[1].quality
    count, samples = shape[:2]
    pixels = [e.height * e.width * len(e.columns) * samples * count for e in encodings]
    assert max(pixels) <= gallery.MAX_DECODED_PIXELS
    for encoding in encodings:
        assert encoding.height <= shape[3] and encoding.width <= shape[4]
        assert encoding.columns[len(encoding.columns) // 2] == shape[2] // 2
    sizes = [encoding.height * encoding.width for encoding in encodings]
    assert sizes == sorted(sizes, reverse=True)


def test_small_showcase_is_stored_whole() -> None:
    first = next(gallery.list_encodings((32, 4, 9, 64, 64, 3)))
    assert (first.height, first.width, len(first.columns), first.quality) == (64, 64, 9, 90)


def _noise(showcase: base.Showcase) -> base.Showcase:
    """Returns the showcase with noise, which compresses worst."""
    frames = np.random.default_rng(1).uniform(-1, 1, showcase.frames.shape).astype(np.float32)
    return dataclasses.replace(showcase, frames=frames)


@pytest.mark.parametrize(
    ("limit", "quality", "steps", "side"),
    [(500_000, 80, 9, 64), (300_000, 80, 5, 64), (132_000, 80, 9, 32)],
)
def test_page_is_bounded_and_says_what_it_left_out(
    make_showcase: Make,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    quality: int,
    steps: int,
    side: int,
) -> None:
    showcase = _noise(make_showcase(2, 3, 9, 64, 64))
    assert len(gallery.build_gallery(showcase).encode()) > limit
    monkeypatch.setattr(gallery, "MAX_BYTES", limit)
    text = gallery.build_gallery(showcase)
    assert len(text.encode()) <= limit
    data = Page(text).data()
    assert (len(data["fractions"]), data["height"], data["width"]) == (steps, side, side)
    assert data["fractionNames"][steps // 2] == "original"
    note = next(text for tag, text in Page(text).texts if tag == "dd" and "JPEG" in text)
    assert f"{side} × {side} pixels each, JPEG quality {quality}" in note
    assert ("5 of 9 shifts kept" in note) == (steps < 9)
    assert ("reduced from 64 × 64 pixels" in note) == (side < 64)


def test_page_that_cannot_fit_is_refused(
    make_showcase: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MAX_BYTES", 50_000)
    with pytest.raises(InputError, match=r"fit 0.05 MB; got 20 directions of 9 samples"):
        gallery.build_gallery(_noise(make_showcase(20, 9, 5, 64, 64)))


def test_write_gallery_is_deterministic(make_showcase: Make, tmp_path: pathlib.Path) -> None:
    for name in ("a.html", "b.html"):
        gallery.write_gallery(tmp_path / name, make_showcase())
    data = (tmp_path / "a.html").read_bytes()
    assert data == (tmp_path / "b.html").read_bytes()
    assert data.startswith(b"<!doctype html>") and b"{{" not in data


def test_help_explains_pale_ends_only_if_there_are_some(make_showcase: Make) -> None:
    """Shifts of equal change inside the effective range; then outside it."""
    showcase = make_showcase()
    for plausible, is_beyond in ((50.0, False), (0.5, True)):
        records = tuple(
            dataclasses.replace(one, equal=one.ends, plausible=(plausible, plausible))
            for one in showcase.directions
        )
        page = gallery.build_gallery(dataclasses.replace(showcase, directions=records))
        assert ("the pale ends of a slider lie outside it" in page) == is_beyond
        assert ("if that comes first" in page) == (not is_beyond)
