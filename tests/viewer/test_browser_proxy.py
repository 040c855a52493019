"""The page in a browser that reaches the viewer through a tunnel or a proxy with a folder."""

import pathlib

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from tests.viewer.browsing import WAIT, open_page, wait_saved, wait_shown
from tests.viewer.proxying import proxy, tunnel
from tests.viewer.serving import Served, serving

pytestmark = pytest.mark.browser

FOLDER = "/user/ann/proxy/8017"
TOKEN = "abcdefgh-01234567"


def test_page_works_below_the_folder_of_a_proxy(
    browser: Browser, faults: list[str], tmp_path: pathlib.Path
) -> None:
    """All links are relative. While the viewer is gone, the page waits, although the proxy answers.
    If the viewer comes back with another token, the page asks for it and then continues.
    """
    served = Served(tmp_path, architecture="dcgan", token=TOKEN)
    with proxy(0, FOLDER) as port:
        pass  # a port that is free, to be told to the viewer
    served.address = f"http://127.0.0.1:{port}{FOLDER}/"
    served.start()
    with proxy(served.port, FOLDER, own_port=port):
        page = open_page(browser, f"{served.address}?token={TOKEN}", faults)
        assert page.url.startswith(f"{served.address}") and "token" not in page.url
        page.locator("#plus-scale").click()
        wait_shown(page, {"0": 1.5})
        np.save(tmp_path / "mine.npy", np.ones((2, 7)))
        page.locator("#own-file").set_input_files(tmp_path / "mine.npy")
        expect(page.locator("#toast")).to_contain_text("mine.npy: 2 latents taken as z")
        served.stop()
        page.get_by_role("button", name="Star", exact=True).click()
        expect(page.locator("#banner")).to_contain_text("does not answer", timeout=WAIT)
        served.token = TOKEN[::-1]
        served.start()
        expect(page.locator("#banner")).to_contain_text("token: expected", timeout=WAIT)
        again = page.context.new_page()
        again.goto(f"{served.address}?token={served.token}")
        expect(page.locator("#banner")).to_be_hidden(timeout=WAIT)
        wait_saved(served, "0", starred=True)
        page.context.close()
    served.stop()


def test_page_works_through_a_tunnel(
    browser: Browser, faults: list[str], tmp_path: pathlib.Path
) -> None:
    with serving(tmp_path, architecture="dcgan") as served, tunnel(served.port) as port:
        page = open_page(browser, f"http://localhost:{port}", faults)
        page.locator("#minus-scale").click()
        wait_shown(page, {"0": -1.0})
        page.get_by_role("button", name="Star", exact=True).click()
        wait_saved(served, "0", starred=True)
        page.context.close()
