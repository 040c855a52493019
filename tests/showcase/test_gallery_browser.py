"""The page in Chromium, opened from disk: notes persist, are saved as a file, and filter cards."""

import dataclasses
import json

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from navigan_jax.notes import Note, Notes, notes_from_json
from navigan_jax.showcase import gallery, layers_page
from tests.viewer.browsing import launch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def open_file(browser):
    """Returns a function from a path to a page; fails at the end if the page had an error."""
    faults, contexts = [], []

    def open_file(path, *, has_clock=False, **options):
        context = browser.new_context(**{"reduced_motion": "reduce"} | options)
        contexts.append(context)
        page = context.new_page()
        if has_clock:  # time stands still until the test lets it pass
            page.clock.install(time=0)
            page.clock.pause_at(1000)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def path(make_showcase, tmp_path):
    """A gallery of five directions; one has a note."""
    notes = Notes("a1", {2: Note("age", text="older")}, {"b2": {"0": {"name": "kept"}}})
    showcase = make_showcase(directions=5, names={2: "age"}, height=16, width=16)
    gallery.write_gallery(tmp_path / "gallery.html", dataclasses.replace(showcase, notes=notes))
    return tmp_path / "gallery.html"


def violations(page):
    """Returns the rules that axe finds violated, with the first element of each."""
    found = Axe().run(page).response["violations"]
    return [(rule["id"], rule["nodes"][0]["html"]) for rule in found]


def saved_notes(page):
    with page.expect_download() as download:
        page.click("#save")
    with open(download.value.path(), encoding="utf-8") as file:
        return notes_from_json(json.load(file), digest="a1", count=5)


def test_notes_survive_a_reload_and_are_saved_as_the_sidecar(open_file, path):
    """A star, a name and a range are entered; earlier notes and those of other files stay."""
    page = open_file(path)
    assert page.locator("#saving").is_hidden()
    page.locator(".card .star").nth(4).click()
    page.locator(".card .picture").nth(1).click()
    page.fill("#note-name", "smile")
    page.locator("#zoom-slider").press("End")
    page.click("#note-here")
    page.keyboard.press("Escape")
    page.reload()
    assert page.locator(".card .name").all_text_contents()[1:3] == ["smile", "age"]
    notes = saved_notes(page)
    assert notes.get(4) == Note(starred=True)
    assert notes.get(1) == Note("smile", good_range=(0, 3.6))
    assert notes.get(2) == Note("age", text="older")
    assert notes.others == {"b2": {"0": {"name": "kept"}}}


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_cards_in_view_move_to_both_ends_once_and_rest(open_file, path, motion):
    """They rest at the stronger end. Cards out of view wait; reduced motion means no movement."""
    page = open_file(
        path, has_clock=True, reduced_motion=motion, viewport={"width": 700, "height": 700}
    )
    shifts, canvas = page.locator(".card output"), page.locator(".card canvas").first
    rest = shifts.all_text_contents()
    told, pictures = [], []
    for _ in range(30):
        page.clock.run_for(100)
        told.append(shifts.all_text_contents())
        pictures.append(canvas.evaluate("canvas => canvas.toDataURL()"))
    first, last = ({texts[card] for texts in told} for card in (0, -1))
    assert told[-1] == rest and all(
        text in ("t = −2", "t = +3", "t = −2.4", "t = +3.6") for text in rest[:2]
    )
    assert last == {rest[-1]}
    if motion == "reduce":
        assert first == {rest[0]}
    else:
        assert first == {"t = −2", "t = −1", "original", "t = +1.5", "t = +3"}
        assert len(set(pictures)) == 5


def test_stars_and_words_filter_by_keyboard(open_file, path):
    page = open_file(path)
    page.locator(".card .picture").nth(3).focus()
    page.keyboard.press("s")
    page.keyboard.press("*")
    assert page.locator("#count").text_content() == "1 of 5"
    page.keyboard.press("*")
    page.keyboard.press("/")
    page.keyboard.type("older")
    assert page.locator(".card .name").all_text_contents() == ["age"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(open_file, path, scheme):
    """By the rules of axe, with a direction enlarged, also at a phone's width."""
    page = open_file(path, color_scheme=scheme, viewport={"width": 390, "height": 800})
    assert not violations(page)
    page.locator(".card .picture").first.click()
    assert not violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_page_of_layers_is_accessible_and_fits_a_phone(open_file, tmp_path):
    random = np.random.RandomState(0)
    layer = layers_page.LayerRecord(
        path="conv1/kernel",
        original_name="main.3",
        resolution=8,
        weights=12,
        eigenvalues=np.array([3.0, 1.0, 0.1]),
        share=0.1,
        half_areas=np.array([0.1]),
        ends=np.array([[2.0, 3.0]]),
        frames=random.uniform(-1, 1, (1, 2, 3, 8, 8, 3)).astype(np.float32),
        changes=random.uniform(0, 1, (1, 8, 8)),
        names=["direction 0"],
    )
    provenance = {"metric": "nlpd", "latents": "4"}
    layers_page.write_page(tmp_path / "layers.html", "dcgan", [layer, layer], provenance)
    page = open_file(tmp_path / "layers.html", viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not violations(page)
