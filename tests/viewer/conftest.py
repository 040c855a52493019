"""A served viewer and a browser, shared by the tests of a module."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.viewer.browsing import launch, open_page
from tests.viewer.serving import Served, serving


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Returns a viewer for all tests of a module."""
    with serving(tmp_path_factory.mktemp("viewer")) as running:
        yield running


@pytest.fixture
def fresh(viewer: Served) -> Served:
    """Returns the module's viewer without notes."""
    viewer.notes_path.unlink(missing_ok=True)
    return viewer


@pytest.fixture(scope="module")
def http(viewer: Served) -> Iterator[httpx.Client]:
    """Returns a client of the module's viewer."""
    with httpx.Client(base_url=viewer.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """Collects the errors of pages; fails at the end if there are any."""
    found: list[str] = []
    yield found
    assert not found


@pytest.fixture
def page(browser: Browser, fresh: Served, faults: list[str]) -> Iterator[Page]:
    """Returns a page of the viewer without notes."""
    opened = open_page(browser, fresh.url, faults)
    yield opened
    opened.context.close()
