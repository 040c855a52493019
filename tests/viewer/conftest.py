"""A served viewer, shared by the tests of a module."""

from collections.abc import Iterator

import httpx
import pytest

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
