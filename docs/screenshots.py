"""Makes the pictures of pages in docs/: a screenshot of each view of viewer, gallery and sweep.

  make demo
  python -m navigan_jax.main --config=configs/sweep.py --workdir=runs/sweep \
      --config.generator=cars
  python -m docs.screenshots            all of them, or those named: viewer gallery_page ...

Starts the viewer on a copy of the demo's directions and looks at it, and at the two pages on the
disk, with the system's Chromium.
"""

import contextlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Literal

from playwright.sync_api import Page, sync_playwright

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


@contextlib.contextmanager
def served(directions: pathlib.Path, folder: pathlib.Path) -> Iterator[str]:
    """Yields the address of a viewer; the notes it writes are in the folder."""
    (folder / "directions.safetensors").symlink_to(directions.resolve())
    shutil.copy(directions.with_suffix(".factors.json"), folder)
    command = [
        *(sys.executable, "-m", "navigan_jax.main", "--config=configs/viewer.py"),
        *(f"--workdir={folder / 'work'}", "--config.port=0", "--config.seed=7"),
        "--config.generator=cars",
        f"--config.directions={folder / 'directions.safetensors'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"open (http://\S+)", process.stdout.readline())
            assert found is not None, "the viewer did not start"
            yield found[1]
        finally:
            process.terminate()
            process.communicate()


def choose(page: Page, index: int, units: float, name: str = "") -> None:
    """Shifts a direction, and names and stars it if it gets a name.

    units: of s; images are plausible from −1 to 1.
    """
    page.locator(f"#cards li[data-index='{index}'] button").click()
    page.locator("#shift").evaluate(
        "(input, steps) => { input.value = steps; "
        "for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind)); }",
        round(100 * units),
    )
    if name:
        page.locator("#name").fill(name)
        page.locator("#name").press("Enter")
        if page.locator("#star").get_attribute("aria-pressed") == "false":
            page.locator("#star").click()
        page.locator("#good-here").click()


def look_wide(page: Page) -> None:
    page.locator("#thumbs button").nth(1).click()
    choose(page, 1, 0.8, "lower roof")
    page.locator("#combine").check()
    choose(page, 6, 1.0, "brighter windows")
    page.locator("#compare input[value=slide]").check(force=True)


def look_dark(page: Page) -> None:
    page.locator("#thumbs button").nth(0).click()
    choose(page, 6, 1.0)
    page.locator("#compare input[value=difference]").check(force=True)


def look_narrow(page: Page) -> None:
    page.locator("#thumbs button").nth(1).click()
    choose(page, 1, 0.8)


def look_at_gallery(page: Page) -> None:
    page.wait_for_timeout(4000)  # until the sheets are drawn and the cards rest


def look_at_one(page: Page) -> None:
    look_at_gallery(page)
    page.locator(".card .enlarge").nth(6).click()


def look_at_layers(page: Page) -> None:
    page.wait_for_load_state("networkidle")


PAGES: dict[str, tuple[str, int, int, Callable[[Page], None]]] = {
    "gallery_page": ("runs/demo/gallery.html", 1240, 860, look_at_gallery),
    "gallery_one": ("runs/demo/gallery.html", 1240, 860, look_at_one),
    "layers_page": ("runs/sweep/layers.html", 1240, 1000, look_at_layers),
}
VIEWS: dict[str, tuple[int, int, Literal["light", "dark"], Callable[[Page], None]]] = {
    "viewer": (1240, 1180, "light", look_wide),
    "viewer_difference": (1240, 1180, "dark", look_dark),
    "viewer_phone": (360, 740, "light", look_narrow),
}


def keep(page: Page, name: str) -> None:
    """Writes what the page shows to docs/ and closes it."""
    path = DOCS / f"{name}.png"
    page.screenshot(path=path)
    print(f"docs/{name}.png  {path.stat().st_size} bytes")
    page.close()


def main() -> None:
    directions = pathlib.Path("runs/demo/directions.safetensors")
    chromium = shutil.which("chromium")
    names = sys.argv[1:] or [*VIEWS, *PAGES]
    pages = {name: page for name, page in PAGES.items() if name in names}
    needed = [directions, *(pathlib.Path(place) for place, *_ in pages.values())]
    missing = [str(path) for path in needed if not path.is_file()]
    if chromium is None or missing:
        sys.exit(f"expected `chromium` on the PATH and {missing}: see the head of this file")
    with (
        tempfile.TemporaryDirectory() as folder,
        served(directions, pathlib.Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for name, (width, height, scheme, look) in VIEWS.items():
            if name not in names:
                continue
            page = browser.new_page(viewport={"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.goto(url)
            page.wait_for_selector("#layout[aria-busy=false]", timeout=60_000)
            look(page)
            page.mouse.move(0, 0)
            page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            page.wait_for_timeout(4000)  # until the previews in sight are there
            keep(page, name)
        for name, (place, width, height, look_at) in pages.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.emulate_media(color_scheme="light")
            page.goto(pathlib.Path(place).resolve().as_uri())
            look_at(page)
            keep(page, name)
        browser.close()


if __name__ == "__main__":
    main()
