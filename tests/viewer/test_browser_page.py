"""The rest of the page: samples, exports, the keyboard, a phone, accessibility."""

import json
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.viewer.browsing import (
    open_page,
    wait_saved,
    wait_shown,
)
from tests.viewer.serving import Served

pytestmark = pytest.mark.browser


def test_samples_are_chosen_pinned_and_drawn_anew(page: Page) -> None:
    page.locator("#thumbs button").nth(1).click()
    page.get_by_role("button", name="Pin").click()
    page.get_by_role("button", name="New").click()
    labels = page.locator("#thumbs button").evaluate_all("all => all.map((b) => b.ariaLabel)")
    assert labels == [
        "Seed 5, sample 1, pinned",
        "Seed 5, sample 3",
        "Seed 5, sample 4",
        "Seed 5, sample 5",
    ]
    page.locator("#seed").fill("9")
    page.locator("#seed").press("Enter")
    expect(page.locator("#thumbs button").nth(1)).to_have_accessible_name("Seed 9, sample 0")


def test_own_latents_and_rows_of_another_sample(page: Page, tmp_path: Any) -> None:
    np.savez(tmp_path / "own.npz", w_plus=np.full((1, 4, 11), 0.5, np.float32))
    page.locator("#own-file").set_input_files(tmp_path / "own.npz")
    expect(page.locator("#thumbs button").first).to_have_accessible_name("Own latent 0, pinned")
    page.get_by_label("Row 2").check(force=True)
    page.get_by_label("Rows from").select_option(label="Seed 5, sample 1")
    page.wait_for_function(
        """() => JSON.stringify(JSON.parse(document.getElementById("after").dataset.shown).mix)
            === '{"source":{"seed":5,"index":1},"rows":[2],"amount":1}'"""
    )
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    page.locator("#own-file").set_input_files(tmp_path / "bad.npz")
    expect(page.locator("#toast")).to_contain_text("bad.npz: expected latents in an .npz or .npy")


def test_exports_are_saved(page: Page, fresh: Served) -> None:
    page.locator("#plus-scale").click()
    wait_shown(page, {"0": 1.5})
    view = json.loads(page.locator("#after").get_attribute("data-shown") or "")
    for name, label in (("edit.png", "PNG"), ("recipe.json", "Recipe"), ("edit.gif", "GIF")):
        with page.expect_download() as download:
            page.get_by_role("button", name=label).click()
        assert download.value.suggested_filename == name
        data = download.value.path().read_bytes()
        found = fresh.studio.view(view)
        if label == "PNG":
            assert data == fresh.studio.png(found)
        if label == "Recipe":
            assert data.decode() == fresh.studio.recipe_text(found.recipe)


def test_keyboard_alone(page: Page, fresh: Served) -> None:
    for _ in range(3):
        page.keyboard.press("]")
    page.keyboard.press("ArrowRight")
    wait_shown(page, {"3": 0.24})
    page.keyboard.press("g")
    with page.expect_response("**/api/notes"):
        page.keyboard.press("s")
    wait_saved(fresh, "3", starred=True, good_range=[0, pytest.approx(0.24)])
    page.keyboard.press("n")
    page.keyboard.type("s[0 warm")  # letters of keys are letters in a field
    with page.expect_response("**/api/notes"):
        page.keyboard.press("Enter")
    wait_saved(fresh, "3", name="s[0 warm", starred=True)
    page.keyboard.press("0")
    wait_shown(page, {})
    page.keyboard.press("Control+z")
    wait_shown(page, {"3": 0.24})
    page.keyboard.press(".")
    expect(page.locator("#thumbs button").nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.press("d")
    expect(page.locator("#picture")).to_have_attribute("data-compare", "original")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Help and keys")).to_be_visible()
    page.keyboard.press("Escape")
    # Everything is reached by the tab key, and the strip is one stop of it.
    page.locator("#undo").focus()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached |= set(
            page.evaluate(
                "() => [document.activeElement, document.activeElement.closest('ul')]"
                ".map((element) => element?.id)"
            )
        )
    expected = {"star", "shift", "shift-number", "name", "good-from", "cards", "thumbs", "sort"}
    assert expected <= reached
    page.locator("#cards button[tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-title")).to_have_text("Direction 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_fault(
    browser: Browser, fresh: Served, faults: list[str], scheme: str
) -> None:
    width = {"light": 1200, "dark": 360}[scheme]
    viewport = {"width": width, "height": 760}
    page = open_page(browser, fresh.url, faults, color_scheme=scheme, viewport=viewport)
    page.locator("#plus-scale").click()
    wait_shown(page, {"0": 1.5})
    for state in ("edited", "slide", "help"):
        if state == "slide":
            page.locator("#compare input[value=slide]").check(force=True)
        if state == "help":
            page.keyboard.press("?")
        found = Axe().run(page).response["violations"]
        assert not found, [(v["id"], [node["target"] for node in v["nodes"]]) for v in found]
    page.context.close()


def test_narrow_screen_has_all_and_scrolls_down_only(
    browser: Browser, fresh: Served, faults: list[str]
) -> None:
    viewport = {"width": 360, "height": 740}
    page = open_page(browser, fresh.url, faults, viewport=viewport, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("#shift").bounding_box()
    assert box is not None and box["y"] + box["height"] < 740  # seen together with the image
    page.locator("#plus-scale").tap()
    wait_shown(page, {"0": 1.5})
    page.locator("#cards li[data-index='1'] button").tap()
    expect(page.locator("#chosen-title")).to_have_text("Direction 1")
    page.get_by_role("button", name="Recipe").scroll_into_view_if_needed()
    picture = page.locator("#picture").bounding_box()
    assert picture is not None and picture["y"] >= 0  # the image stays in sight
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input")].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width && (box.height < 16 || box.right > 361 && !e.closest("ul"));
        }).map((e) => e.id || e.textContent)"""
    )
    assert small == []
    page.context.close()
