"""Shifts in the page: by slider and mouse, combined, and compared with the original."""

import pytest
from playwright.sync_api import Page, Route, expect

from navigan_jax.showcase.base import to_rgb
from tests.viewer.browsing import WAIT, choose, drag, shift_of_slider, shown, wait_shown
from tests.viewer.serving import Served

pytestmark = pytest.mark.browser


def test_page_shows_the_generator_and_its_directions(page: Page, fresh: Served) -> None:
    expect(page).to_have_title("Directions of synthesis/b8/conv0/kernel")
    expect(page.locator("#cards button")).to_have_count(6)
    expect(page.locator("#thumbs button")).to_have_count(3)
    for canvas in page.locator("#cards canvas, #thumbs canvas").all():
        expect(canvas).to_have_attribute("data-shown", "true", timeout=WAIT)
    colours = page.evaluate(
        """() => [...document.getElementById("after").getContext("2d")
            .getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 < 3)"""
    )
    view = fresh.studio.view({"sample": {"seed": 5, "index": 0}})
    assert colours == to_rgb(fresh.studio.render(view.recipe)).ravel().tolist()


def test_drag_is_followed_and_its_end_is_shown(page: Page) -> None:
    drag(page, [0.6, 0.7])
    wait_shown(page, {"0": shift_of_slider(page)})
    assert shift_of_slider(page) > 0.5
    page.get_by_role("button", name="Undo").click()
    wait_shown(page, {})
    page.get_by_role("button", name="Redo").click()
    wait_shown(page, {"0": shift_of_slider(page)})


def test_shift_outside_the_effective_range_says_so(page: Page) -> None:
    for shift, text in ((-2, "−2 s"), (-2.5, "−2.5 s, outside the effective range"), (3, "+2 s")):
        page.locator("#shift-number").fill(str(shift))
        page.locator("#shift-number").press("Enter")
        expect(page.locator("#shift-text")).to_have_text(text)


def test_slider_and_keys_count_in_s_of_the_side_they_are_on(page: Page) -> None:
    """Direction 1, from −1.2 to +1.8: one s on the slider is an end of the pictures."""
    choose(page, 1)
    expect(page.locator("#measures")).to_contain_text("s−1.2 … +1.8")
    for steps, shift in ((-100, -1.2), (100, 1.8), (-200, -2.4)):
        page.locator("#shift").fill(str(steps))
        wait_shown(page, {"1": shift})
        expect(page.locator("#moves input")).to_have_value(str(steps))
        expect(page.locator("#moves output")).to_have_text(f"{steps / 100:+g} s".replace("-", "−"))
    page.locator("#moves input").fill("-10")
    wait_shown(page, {"1": -0.12})
    page.locator("#picture").click()
    page.keyboard.press("ArrowRight")
    wait_shown(page, {})
    page.keyboard.press("ArrowRight")
    wait_shown(page, {"1": 0.18})


def test_rapid_drag_never_ends_on_a_stale_image(page: Page) -> None:
    """Every second answer is held back until later ones came; no older picture is shown."""
    sequences: list[int] = []
    page.expose_function("tellSequence", lambda number: sequences.append(int(number)))
    page.evaluate(
        """() => {
          const after = document.getElementById("after");
          const observer = new MutationObserver(() => tellSequence(after.dataset.sequence));
          observer.observe(after, { attributeFilter: ["data-sequence"] });
        }"""
    )
    asked: list[int] = []

    def hold(route: Route) -> None:
        body = route.request.post_data_json
        if body["place"] != "after":
            route.continue_()
            return
        asked.append(body["sequence"])
        if len(asked) % 2:
            route.continue_()
        else:
            answer = route.fetch()
            page.wait_for_timeout(150)
            route.fulfill(response=answer)

    page.route("**/api/image", hold)
    drag(page, [0.5 + 0.4 * ((7 * n) % 11 - 5) / 5 for n in range(60)])
    wait_shown(page, {"0": shift_of_slider(page)})
    page.wait_for_timeout(400)  # the delayed answers arrive now
    assert shown(page) == {"0": pytest.approx(shift_of_slider(page))}
    assert sequences == sorted(sequences) and len(asked) < 60
    page.unroute_all(behavior="ignoreErrors")


def test_directions_are_combined_and_taken_out(page: Page) -> None:
    page.locator("#plus-scale").click()
    choose(page, 2)
    page.locator("#minus-scale").click()
    wait_shown(page, {"2": -1.4})  # one at a time, unless they are combined
    page.get_by_label("Combine directions").check()
    choose(page, 1)
    page.locator("#shift-number").fill("0.25")
    page.locator("#shift-number").press("Enter")
    wait_shown(page, {"1": 0.25, "2": -1.4})
    page.get_by_role("button", name="Remove Direction 2 from the edit").click()
    wait_shown(page, {"1": 0.25})
    page.get_by_role("button", name="Reset").click()
    wait_shown(page, {})


def test_comparisons(page: Page) -> None:
    page.locator("#plus-scale").click()
    wait_shown(page, {"0": 1.5})
    page.locator("#compare input[value=slide]").check(force=True)
    divider = page.get_by_label("Divider between original and edited image")
    divider.focus()
    page.keyboard.press("End")
    expect(divider).to_have_value("100")
    assert "100%" in page.locator("#after").evaluate("e => getComputedStyle(e).clipPath")
    page.locator("#compare input[value=difference]").check(force=True)
    expect(page.locator("#picture-note")).to_contain_text("on average")
    page.locator("#zero").click()
    expect(page.locator("#picture-note")).to_contain_text("0 % on average, 0 % at most")
    page.locator("#compare input[value=original]").check(force=True)
    expect(page.locator("#before")).to_be_visible()
    expect(page.locator("#after")).to_be_hidden()
