"""Label maps in the viewer: that of the sample is shown, and own files take its place."""

import io
import json
import pathlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from navigan_jax.editing.recipe import Drawn
from navigan_jax.editing.rendering import draw_latent
from navigan_jax.generators.pix2pixhd import layouts
from tests.viewer.browsing import open_page
from tests.viewer.serving import Served, make_studio, serving

VIEW = {"sample": {"seed": 1, "index": 2}, "moves": [{"index": 1, "shift": 0.5}]}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("street"), architecture="pix2pixhd") as running:
        yield running


def _ask(served: Served, path: str, view: object, sequence: int) -> httpx.Response:
    body = {"client": "test", "sequence": sequence, "view": view}
    return httpx.post(f"{served.url}/api/{path}", json=body, timeout=60)


def _pixels(answer: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def _own(served: Served, name: str, data: bytes) -> httpx.Response:
    headers = {"content-type": "application/octet-stream"}
    return httpx.post(f"{served.url}/api/latents?file={name}", content=data, headers=headers)


def test_map_of_the_sample_is_coloured(street: Served) -> None:
    latent = draw_latent(street.studio.generator, Drawn(1, 2))[0]
    answer = _ask(street, "label_map", VIEW, 1)
    np.testing.assert_array_equal(_pixels(answer), layouts.colour(latent[..., 0]))
    image = _pixels(_ask(street, "image", VIEW, 2))
    assert image.shape == street.studio.generator.image_shape


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_own_map_takes_the_place_of_the_sample(street: Served, kind: str) -> None:
    """Resized to the generator's size; saved and found again under its name."""
    labels = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12) % 29
    buffer = io.BytesIO()
    if kind == "png":
        Image.fromarray(labels).save(buffer, "PNG")
    else:
        np.savez(buffer, labels=labels[None], instances=labels[None] * np.int32(1000))
    answer = _own(street, f"mine.{kind}", buffer.getvalue()).json()
    assert (answer["space"], answer["count"]) == ("z", 1)
    shown = _pixels(
        _ask(street, "label_map", {"sample": {"own": answer["own"]}}, 10 + (kind == "npz"))
    )
    np.testing.assert_array_equal(shown, layouts.colour(labels.repeat(2, axis=0).repeat(2, axis=1)))
    street.studio.own._held.clear()
    found = street.studio.own.find(answer["own"]).values[0]
    np.testing.assert_array_equal(found[::2, ::2, 0], labels)


def test_map_with_unknown_labels_is_refused(street: Served) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 12), 200, np.uint8)).save(buffer, "PNG")
    answer = _own(street, "mine.png", buffer.getvalue())
    assert answer.status_code == 400
    assert "expected labels 0 to 28" in answer.json()["error"]


def test_other_generators_have_no_map(tmp_path: pathlib.Path) -> None:
    studio = make_studio("dcgan", tmp_path)
    assert studio.describe()["generator"]["has_label_maps"] is False


@pytest.mark.browser
def test_page_shows_the_map_and_the_shape_of_images(
    street: Served, browser: Browser, faults: list[str]
) -> None:
    page = open_page(browser, street.url, faults)
    shown = json.dumps(
        {"sample": {"seed": 5, "index": 0}, "moves": [], "mix": None}, separators=(",", ":")
    )
    expect(page.locator("#label-map-canvas")).to_have_attribute("data-shown", shown)
    box = page.locator("#picture").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(24 / 16, rel=0.02)
