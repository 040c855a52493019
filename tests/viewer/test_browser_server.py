"""The page after its server died, and pages of other sites in the same browser."""

import pathlib
import signal

import pytest
from playwright.sync_api import Browser, expect

from tests.viewer.browsing import (
    READY,
    WAIT,
    open_page,
    wait_saved,
    wait_shown,
)
from tests.viewer.serving import Process, Served, write_files

pytestmark = pytest.mark.browser


def test_page_continues_after_its_server_was_killed_and_started_again(
    browser: Browser, faults: list[str], tmp_path: pathlib.Path
) -> None:
    """SIGKILL while the page is open, then the same command; two starts take seconds."""
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


@pytest.mark.parametrize("site", ["http://evil.example/", "http://127.0.0.1:1/"])
def test_another_site_cannot_drive_the_viewer(
    browser: Browser, fresh: Served, faults: list[str], site: str
) -> None:
    """A page of another origin tries every request that it can send. Another port of this machine
    is another origin, although browsers call it the same site.
    """
    context = browser.new_context()
    page = context.new_page()
    page.route(
        site,
        lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"),
    )
    page.goto(site)
    outcome = page.evaluate(ATTEMPTS, fresh.url)
    assert outcome["read"] == outcome["json"] == outcome["script"] == "refused"
    assert outcome["plain"] in ("opaque", "refused")  # sent perhaps, never obeyed
    assert all(frame.query_selector("#shift") is None for frame in page.frames)
    assert not fresh.notes_path.exists()
    context.close()
