"""Images with alpha in the viewer: pictures, exports, and the page's checkerboard."""

import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from navigan_jax.channels import over_black_and_white
from navigan_jax.showcase.base import to_uint8
from tests.viewer.browsing import open_page, wait_shown
from tests.viewer.serving import Served, serving

VIEW = {"sample": {"seed": 1}, "moves": [{"index": 1, "shift": 2.0}], "mix": None}


@pytest.fixture(scope="module", params=[2, 4])
def transparent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Returns a viewer of images with this number of channels."""
    folder = tmp_path_factory.mktemp("alpha")
    with serving(folder, architecture="dcgan", image_channels=request.param) as running:
        yield running


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_pictures_and_exports_keep_the_alpha(transparent: Served) -> None:
    """The PNG has all channels of the image; a video is made without alpha."""
    studio = transparent.studio
    with httpx.Client(base_url=transparent.url, timeout=60) as http:
        assert http.get("/api/state").json()["generator"]["alpha"] is True
        body = {"client": "alpha", "sequence": 1, "view": VIEW}
        expected = to_uint8(studio.render(studio.view(VIEW).recipe))
        np.testing.assert_array_equal(decode(http.post("/api/image", json=body).content), expected)
        made = {
            kind: http.post("/api/export", json={"kind": kind, "view": VIEW})
            for kind in ("png", "gif", "mp4")
        }
    assert [answer.status_code for answer in made.values()] == [200] * 3
    np.testing.assert_array_equal(decode(made["png"].content), expected)


@pytest.mark.browser
@pytest.mark.parametrize("transparent", [4], indirect=True)  # to a browser, 2 are 4
def test_page_shows_what_is_transparent_and_how_it_changes(
    transparent: Served, browser: Browser, faults: list[str]
) -> None:
    """The canvas keeps the alpha; the difference is the mean over black and over white."""
    page = open_page(browser, transparent.url, faults)
    page.locator("#plus-scale").click()
    wait_shown(page, {"0": 1.5})
    page.locator("#compare input[value=difference]").check(force=True)
    page.wait_for_function("document.getElementById('picture-note').textContent.includes('%')")
    for name in ("before", "after"):
        style = f"getComputedStyle(document.getElementById('{name}')).backgroundImage"
        assert page.evaluate(style).startswith("repeating-conic-gradient(")
    view = json.loads(page.locator("#after").get_attribute("data-shown") or "")
    after, before = (
        over_black_and_white(transparent.studio.render(transparent.studio.view(one).recipe))
        for one in (view, view | {"moves": []})
    )
    largest = 100 * np.abs((after - before) / 2).mean(axis=2).max()
    told = page.locator("#picture-note").text_content() or ""
    assert float(told.split("average, ")[1].split(" %")[0]) == pytest.approx(largest, rel=0.02)
    page.context.close()
