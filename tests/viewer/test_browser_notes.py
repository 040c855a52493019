"""Names, stars and good ranges entered in the page."""

import pytest
from playwright.sync_api import Page, expect

from tests.viewer.browsing import READY, WAIT, choose, wait_saved, wait_shown
from tests.viewer.serving import Served

pytestmark = pytest.mark.browser


def test_names_stars_and_ranges_survive_a_reload(page: Page, fresh: Served) -> None:
    choose(page, 3)
    page.get_by_label("Name", exact=True).fill("smile")
    page.get_by_label("Name", exact=True).press("Enter")
    page.get_by_role("button", name="Star", exact=True).click()
    page.locator("#plus-scale").click()
    with page.expect_response("**/api/notes"):
        page.get_by_role("button", name="Widen to here").click()
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
    page.get_by_label("Find a direction by name or number").fill("SMI")
    expect(page.locator("#cards button")).to_have_count(1)


def test_good_range_is_typed_one_bound_after_the_other(page: Page, fresh: Served) -> None:
    """The first bound stays while the other is missing; an invalid range gives a message."""

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
    expect(page.locator("#toast")).to_contain_text("must be lower than the second")
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
