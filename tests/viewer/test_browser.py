"""The page in Chromium: what a person does by mouse, by keys, on a phone, in two tabs."""

import json
import pathlib
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, Route, expect, sync_playwright

from navigan_jax.showcase.base import to_rgb
from tests.viewer.serving import Process, Served, write_files

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY = "#layout[aria-busy=false]"
WAIT = 20_000  # milliseconds, on a machine that does much else


def launch(playwright: Playwright) -> Browser:
    """Returns the system's Chromium; fails with what to install if there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(
            f"the tests of the page need Chromium, and there is none of {', '.join(BROWSERS)} on "
            "the PATH; install it: apt-get update && apt-get install -y chromium, or leave these "
            'tests out: pytest -m "not browser"'
        )
    return playwright.chromium.launch(executable_path=path, args=list(FLAGS))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """Collects what goes wrong in pages; there has to be nothing at the end."""
    found: list[str] = []
    yield found
    assert not found


def open_page(browser: Browser, url: str, faults: list[str], **options: Any) -> Page:
    """Returns the page, ready, in a new context."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 820}} | options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith((url, "blob:", "data:")) or faults.append(r.url))
    page.goto(url)
    page.wait_for_selector(READY)
    return page


@pytest.fixture
def page(browser: Browser, fresh: Served, faults: list[str]) -> Iterator[Page]:
    """Returns a page of the viewer without notes."""
    opened = open_page(browser, fresh.url, faults)
    yield opened
    opened.context.close()


def shown(page: Page) -> dict[str, float]:
    """Returns the shifts of the image on the screen, by direction."""
    view = json.loads(page.locator("#after").get_attribute("data-shown") or "{}")
    return {str(move["index"]): move["shift"] for move in view.get("moves", [])}


def wait_shown(page: Page, shifts: dict[str, float]) -> None:
    """Waits until the image with these shifts is on the screen."""
    expected = {key: pytest.approx(value) for key, value in shifts.items()}
    for _ in range(WAIT // 50):
        if shown(page) == expected:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"expected an image of {shifts}; got {shown(page)}")


def drag(page: Page, places: list[float]) -> None:
    """Moves the shift's thumb by the mouse through places from 0 to 1, without waiting."""
    box = page.locator("#shift").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for place in places:
        page.mouse.move(box["x"] + 9 + place * (box["width"] - 18), y)
    page.mouse.up()


def shift_of_slider(page: Page) -> float:
    """Returns the shift of direction 0, whose s is 1 and 1.5, where its slider stands."""
    place = int(page.locator("#shift").input_value()) / 100
    return place * (1.0 if place < 0 else 1.5)


def choose(page: Page, index: int) -> None:
    page.locator(f"#cards li[data-index='{index}'] button").click()


def wait_saved(served: Served | Process, key: str, **fields: Any) -> None:
    """Waits until the sidecar holds this of a direction."""
    found: dict[str, Any] = {}
    for _ in range(WAIT // 50):
        if served.notes_path.exists():
            (own,) = json.loads(served.notes_path.read_text(encoding="utf-8"))[
                "directions"
            ].values()
            found = own.get(key, {})
            if all(found.get(name) == value for name, value in fields.items()):
                return
        time.sleep(0.05)
    raise AssertionError(f"expected {fields} in the notes of direction {key}; got {found}")


def test_page_shows_what_there_is(page: Page, fresh: Served) -> None:
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


def test_shift_out_of_the_plausible_range_says_so(page: Page) -> None:
    for shift, text in ((-2, "−2 s"), (-2.5, "−2.5 s, beyond plausible"), (3, "+2 s")):
        page.locator("#shift-number").fill(str(shift))
        page.locator("#shift-number").press("Enter")
        expect(page.locator("#shift-text")).to_have_text(text)


def test_slider_and_keys_count_in_s_of_the_side_they_are_on(page: Page) -> None:
    """Direction 1, from −1.2 to +1.8: one s on the slider is an end of what pictures show."""
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
    """Every second answer is held back until later ones are there; no picture goes back in time."""
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
    page.wait_for_timeout(400)  # whatever is still under way comes now
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
    page.get_by_role("button", name="Take Direction 2 out").click()
    wait_shown(page, {"1": 0.25})
    page.get_by_role("button", name="Reset").click()
    wait_shown(page, {})


def test_names_stars_and_ranges_survive_a_reload(page: Page, fresh: Served) -> None:
    choose(page, 3)
    page.get_by_label("Name", exact=True).fill("smile")
    page.get_by_label("Name", exact=True).press("Enter")
    page.get_by_role("button", name="Star", exact=True).click()
    page.locator("#plus-scale").click()
    with page.expect_response("**/api/notes"):
        page.get_by_role("button", name="Here").click()
    wait_saved(fresh, "3", name="smile", starred=True, good_range=[0, pytest.approx(2.4)])
    page.reload()
    page.wait_for_selector(READY)
    wait_shown(page, {"3": 2.4})
    expect(page.get_by_label("Name", exact=True)).to_have_value("smile")
    expect(page.get_by_role("button", name="Star", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.locator("#good-to")).to_have_value("2.4")
    page.locator("#starred-only").check()
    expect(page.locator("#cards button")).to_have_count(1)
    page.locator("#starred-only").uncheck()
    page.get_by_label("Find by name or number").fill("SMI")
    expect(page.locator("#cards button")).to_have_count(1)


def test_good_range_is_typed_one_bound_after_the_other(page: Page, fresh: Served) -> None:
    """The first one stays while the other is missing; a range that is none is refused aloud."""

    def fill(place: str, text: str) -> None:
        page.locator(f"#good-{place}").fill(text)
        page.locator(f"#good-{place}").press("Tab")

    fill("from", "0.5")
    page.locator("#plus-scale").click()
    expect(page.locator("#good-from")).to_have_value("0.5")
    with page.expect_response("**/api/notes"):
        fill("to", "1.5")
    wait_saved(fresh, "0", good_range=[0.5, 1.5])
    fill("to", "-2")
    expect(page.locator("#toast")).to_contain_text("from a lower shift to a higher one")
    choose(page, 1)
    expect(page.locator("#good-to")).to_have_value("")
    choose(page, 0)
    expect(page.locator("#good-to")).to_have_value("1.5")
    fill("from", "")  # counts as 0
    wait_saved(fresh, "0", good_range=[0, 1.5])
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#good-to")).to_have_value("")


def test_undo_takes_a_name_back_from_the_disk_too(page: Page, fresh: Served) -> None:
    for name in ("first", "second"):
        with page.expect_response("**/api/notes"):
            page.get_by_label("Name", exact=True).fill(name)
            page.get_by_label("Name", exact=True).press("Enter")
    with page.expect_response("**/api/notes"):
        page.get_by_role("button", name="Undo").click()
    wait_saved(fresh, "0", name="first")
    expect(page.get_by_label("Name", exact=True)).to_have_value("first")


def test_comparisons(page: Page) -> None:
    page.locator("#plus-scale").click()
    wait_shown(page, {"0": 1.5})
    page.locator("#compare input[value=slide]").check(force=True)
    divider = page.get_by_label("Border between original and edited")
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
    expect(page.locator("#toast")).to_contain_text("latents: expected an .npz file")


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
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
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


def test_two_tabs_show_the_same_notes_and_their_own_images(
    page: Page, fresh: Served, faults: list[str]
) -> None:
    other = page.context.new_page()
    other.on("pageerror", lambda error: faults.append(str(error)))
    other.goto(fresh.url)
    other.wait_for_selector(READY)
    page.get_by_label("Name", exact=True).fill("seen in both")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(other.locator("#name")).to_have_value("seen in both", timeout=WAIT)
    other.locator("#plus-scale").click()
    page.locator("#minus-scale").click()
    wait_shown(other, {"0": 1.5})
    wait_shown(page, {"0": -1.0})


def test_page_goes_on_when_the_servers_process_is_killed_and_started_again(
    browser: Browser, faults: list[str], tmp_path: pathlib.Path
) -> None:
    """SIGKILL while the page is open, then the same command: two starts, hence the seconds."""
    write_files(tmp_path)
    with Process(tmp_path) as served:
        page = open_page(browser, served.url, faults)
        page.locator("#plus-scale").click()
        wait_shown(page, {"0": 1.5})
        page.get_by_label("Name", exact=True).fill("smile")
        with page.expect_response("**/api/notes"):
            page.get_by_label("Name", exact=True).press("Enter")
    assert served.running.returncode == -signal.SIGKILL
    wait_saved(served, "0", name="smile", starred=False)
    page.locator("#minus-scale").click()
    page.get_by_role("button", name="Star", exact=True).click()
    expect(page.locator("#banner")).to_contain_text("does not answer", timeout=WAIT)
    wait_saved(served, "0", name="smile", starred=False)
    with Process(tmp_path, served.port) as again:
        assert again.url == served.url
        wait_shown(page, {"0": -1.0})
        expect(page.locator("#banner")).to_be_hidden(timeout=WAIT)
        wait_saved(again, "0", name="smile", starred=True)
        page.reload()
        page.wait_for_selector(READY)
        expect(page.get_by_label("Name", exact=True)).to_have_value("smile", timeout=WAIT)
        expect(page.get_by_role("button", name="Star", exact=True)).to_have_attribute(
            "aria-pressed", "true", timeout=WAIT
        )
        page.context.close()


ATTEMPTS = """async (url) => {
  const change = JSON.stringify({ index: 0, change: { starred: true } });
  const post = (more) => fetch(`${url}/api/notes`, { method: "POST", body: change, ...more });
  const load = (tag) => new Promise((yes, no) => {
    const element = document.createElement(tag);
    element.onload = yes;
    element.onerror = no;
    element.src = tag === "script" ? `${url}/main.js` : url;
    document.body.append(element);
  });
  const attempts = {
    read: () => fetch(`${url}/api/state`),
    json: () => post({ headers: { "content-type": "application/json" } }),
    plain: () => post({ mode: "no-cors" }).then((response) => response.type),
    script: () => load("script"),
    frame: () => load("iframe"),
  };
  const told = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try {
      told[name] = String(await attempt());
    } catch {
      told[name] = "refused";
    }
  }
  return told;
}"""


def test_another_site_cannot_drive_the_viewer(
    browser: Browser, fresh: Served, faults: list[str]
) -> None:
    """A page of another origin, in the same browser, tries all that pages can."""
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://evil.example/",
        lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"),
    )
    page.goto("http://evil.example/")
    outcome = page.evaluate(ATTEMPTS, fresh.url)
    assert outcome["read"] == outcome["json"] == outcome["script"] == "refused"
    assert outcome["plain"] in ("opaque", "refused")  # sent perhaps, never obeyed
    assert all(frame.query_selector("#shift") is None for frame in page.frames)
    assert not fresh.notes_path.exists()
    context.close()
