"""The system's Chromium, and the actions of a user in the viewer's page."""

import json
import shutil
import time
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.viewer.serving import Process, Served

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


def open_page(browser: Browser, url: str, faults: list[str], **options: Any) -> Page:
    """Returns the page in a new context, once it is ready."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 820}} | options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = (url.partition("?")[0], "blob:", "data:")
    page.on("request", lambda r: r.url.startswith(own) or faults.append(r.url))
    page.goto(url)
    page.wait_for_selector(READY)
    return page


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
    """Drags the thumb of the shift with the mouse to places from 0 to 1, without waiting."""
    box = page.locator("#shift").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for place in places:
        page.mouse.move(box["x"] + 9 + place * (box["width"] - 18), y)
    page.mouse.up()


def shift_of_slider(page: Page) -> float:
    """Returns the shift of direction 0 at its slider; its s is 1 and 1.5."""
    place = int(page.locator("#shift").input_value()) / 100
    return place * (1.0 if place < 0 else 1.5)


def choose(page: Page, index: int) -> None:
    page.locator(f"#cards li[data-index='{index}'] button").click()


def wait_saved(served: Served | Process, key: str, **fields: Any) -> None:
    """Waits until the notes file holds these values of a direction."""
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
