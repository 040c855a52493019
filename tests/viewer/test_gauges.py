"""The viewer's gauges: numbers of the images shown, their panel, and mistakes in own functions."""

import json
import pathlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from navigan_jax import suggestions
from navigan_jax.errors import InputError
from navigan_jax.evaluation.gauges import Factor, Gauges
from navigan_jax.viewer.studio import Studio
from tests.viewer.browsing import choose, open_page
from tests.viewer.serving import Served, make_studio, serving

FACTORS = (Factor("brightness", -1, 1), Factor("tint", 0, 1, is_circular=True), Factor("contrast"))
VIEW = {"sample": {"seed": 1}, "moves": [{"index": 1, "shift": 2.0}]}


def read(images: np.ndarray) -> np.ndarray:
    """Returns brightness in thousandths, the red channel modulo 1, and contrast."""
    images = np.asarray(images)
    columns = [1e3 * images.mean((1, 2, 3)), images[..., 0].mean((1, 2)) % 1, images.std((1, 2, 3))]
    return np.stack(columns, axis=1).astype(np.float32)


GAUGES = Gauges(FACTORS, read, digest="none", source="own.py:make")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("measured")
    with serving(folder, gauges=GAUGES) as running:
        yield running


def _ask(served: Served, view: object, sequence: int, client: str = "test") -> httpx.Response:
    body = {"client": client, "sequence": sequence, "view": view}
    return httpx.post(f"{served.url}/api/gauges", json=body, timeout=60)


def test_numbers_are_those_of_the_images(measured: Served) -> None:
    """Values and original equal the gauges of what `render` returns; changes wrap and scale."""
    answer = _ask(measured, VIEW, 1).json()
    studio = measured.studio
    edited, original = (
        read(studio.render(studio.view({**VIEW, "moves": moves}).recipe)[None])[0]
        for moves in (VIEW["moves"], [])
    )
    np.testing.assert_allclose(answer["values"], edited, rtol=1e-6)
    np.testing.assert_allclose(answer["original"], original, rtol=1e-6)
    brightness, tint, contrast = answer["changes"]
    assert brightness == pytest.approx((edited[0] - original[0]) / 2, rel=1e-4)
    turned = tint - float(edited[1] - original[1])
    assert -0.5 <= tint < 0.5 and turned == pytest.approx(round(turned), abs=1e-5)
    assert contrast == pytest.approx(edited[2] - original[2], rel=1e-3, abs=1e-6)


def test_without_moves_nothing_changes(measured: Served) -> None:
    answer = _ask(measured, {"sample": {"seed": 1}}, 1, client="still").json()
    assert answer["values"] == answer["original"] and not any(answer["changes"])


def test_state_names_the_factors(measured: Served) -> None:
    state = httpx.get(f"{measured.url}/api/state", timeout=60).json()
    assert state["gauges"]["source"] == "own.py:make"
    assert [row["name"] for row in state["gauges"]["factors"]] == [row.name for row in FACTORS]
    assert state["gauges"]["factors"][2]["low"] is None


def test_an_older_request_gets_no_content(measured: Served) -> None:
    assert _ask(measured, VIEW, 9, client="late").status_code == 200
    assert _ask(measured, VIEW, 8, client="late").status_code == 204


def test_without_gauges_the_request_is_refused(tmp_path: pathlib.Path) -> None:
    studio: Studio = make_studio("dcgan", tmp_path)
    assert studio.describe()["gauges"] is None
    with pytest.raises(InputError, match=r"set them with --config\.gauges"):
        studio.read_gauges(studio.view({"sample": {"seed": 1}}))


@pytest.mark.browser
def test_panel_follows_the_image(browser: Browser, measured: Served, faults: list[str]) -> None:
    """Each factor has a row; the text tells the value and the change that the server sends."""
    page = open_page(browser, measured.url, faults)
    rows = page.locator("#gauge-rows tr")
    expect(rows).to_have_count(len(FACTORS))
    expect(rows.nth(0).locator(".change")).to_have_text("")
    with page.expect_response("**/api/gauges") as answered:
        page.locator("#plus-scale").click()
    change = answered.value.json()["changes"][0] * 2
    shown = rows.nth(0).locator(".change")
    expect(shown).to_have_text(as_written(change))
    expect(rows.nth(2).locator(".bar")).to_be_hidden()
    page.context.close()


def as_written(value: float) -> str:
    """Returns a change as the page writes it."""
    sign = "−" if value < 0 else "+"
    return f"{sign}{float(f'{abs(value):.3g}'):g}"


@pytest.mark.browser
def test_failing_gauges_are_told_in_their_panel(
    browser: Browser, measured: Served, faults: list[str]
) -> None:
    """The message stands in the panel; the image is there, and the next one is read again."""
    page = open_page(browser, measured.url, faults)
    refused = json.dumps({"error": "own.py:make: expected finite readings; got NaN"})
    page.route("**/api/gauges", lambda route: route.fulfill(status=400, body=refused))
    choose(page, 2)
    page.locator("#plus-scale").click()
    expect(page.locator("#gauges-note")).to_contain_text("expected finite readings")
    page.unroute("**/api/gauges")
    page.locator("#zero").click()
    page.locator("#minus-scale").click()
    expect(page.locator("#gauges-note")).to_be_hidden()
    page.context.close()


@pytest.mark.browser
def test_proposed_name_is_shown_and_taken(
    browser: Browser, tmp_path: pathlib.Path, faults: list[str]
) -> None:
    """A proposed name has a question mark until the user takes it; it is then saved."""
    studio = make_studio("stylegan2", tmp_path)
    rows = [{"index": 1, "name": "wheel radius +"}]
    data = {"format": "navigan_jax.factors", "version": 1, "directions": rows}
    data["directions_digest"] = studio.directions_digest
    suggestions.sidecar_path(studio.path).write_text(json.dumps(data))
    with serving(tmp_path) as running:
        page = open_page(browser, running.url, faults)
        title = page.locator("#cards li[data-index='1'] .title")
        expect(title).to_have_text("1 · wheel radius + ?")
        choose(page, 1)
        page.get_by_role("button", name="Use “wheel radius +”").click()
        expect(page.locator("#name")).to_have_value("wheel radius +")
        expect(title).to_have_text("1 · wheel radius +")
        expect(page.locator("#gauges")).to_be_hidden()
        page.wait_for_timeout(300)
        notes = json.loads(running.notes_path.read_text())
        page.context.close()
    (saved,) = notes["directions"].values()
    assert saved["1"]["name"] == "wheel radius +"
