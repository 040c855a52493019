"""Makes the pictures of the viewer in docs/: a screenshot of each of its views.

  make demo && python -m docs.screenshots

Starts the viewer on a copy of the demo's directions and looks at it with the system's Chromium.
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
    command = [
        *(sys.executable, "-m", "navigan_jax.main", "--config=configs/viewer.py"),
        *(f"--workdir={folder / 'work'}", "--config.port=0", "--config.seed=24"),
        "--config.generator=runs/weights/faces.safetensors",
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


def choose(page: Page, index: int, scales: float, name: str = "") -> None:
    """Shifts a direction by so many of its scales, and names and stars it if it gets a name."""
    page.locator(f"#cards li[data-index='{index}'] button").click()
    page.locator("#shift").evaluate(
        "(input, steps) => { input.value = steps; "
        "for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind)); }",
        round(100 * scales),
    )
    if name:
        page.locator("#name").fill(name)
        page.locator("#name").press("Enter")
        if page.locator("#star").get_attribute("aria-pressed") == "false":
            page.locator("#star").click()
        page.locator("#good-here").click()


def look_wide(page: Page) -> None:
    page.locator("#thumbs button").nth(5).click()
    choose(page, 4, 2.0, "light from the side")
    page.locator("#combine").check()
    choose(page, 2, -1.8, "hair")
    page.locator("#compare input[value=slide]").check(force=True)


def look_dark(page: Page) -> None:
    page.locator("#thumbs button").nth(4).click()
    choose(page, 2, 2.0)
    page.locator("#compare input[value=difference]").check(force=True)


def look_narrow(page: Page) -> None:
    page.locator("#thumbs button").nth(6).click()
    choose(page, 4, 1.6)


VIEWS: dict[str, tuple[int, int, Literal["light", "dark"], Callable[[Page], None]]] = {
    "viewer": (1240, 860, "light", look_wide),
    "viewer_difference": (1240, 860, "dark", look_dark),
    "viewer_phone": (360, 740, "light", look_narrow),
}


def main() -> None:
    directions = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    directions = directions / "directions.safetensors"
    chromium = shutil.which("chromium")
    if chromium is None or not directions.is_file():
        sys.exit(f"expected `chromium` on the PATH and {directions}: run make demo first")
    with (
        tempfile.TemporaryDirectory() as folder,
        served(directions, pathlib.Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for name, (width, height, scheme, look) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.goto(url)
            page.wait_for_selector("#layout[aria-busy=false]", timeout=60_000)
            look(page)
            page.mouse.move(0, 0)
            page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            page.wait_for_timeout(4000)  # until the previews in sight are there
            page.screenshot(path=DOCS / f"{name}.png")
            print(f"docs/{name}.png  {(DOCS / f'{name}.png').stat().st_size} bytes")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
