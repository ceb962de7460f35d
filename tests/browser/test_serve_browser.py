"""`irqmatrix serve` in Chromium: from the overview over a finding and a run to its report."""

from __future__ import annotations

import threading

import pytest
from selenium.webdriver.common.by import By

from harness.commands import serve
from harness.store import result
from support import stored


@pytest.fixture
def address(tmp_path):
    """Where a store of three nights is served; the last one has its directory."""
    nights = stored.Nights(tmp_path / "store.sqlite")
    nights.enter(stored.night())
    nights.enter(stored.night(stored.finding("poll")))
    folder = tmp_path / "run"
    folder.mkdir()
    run = stored.night(stored.finding("poll"))
    result.write(run, folder / "result.json")
    nights.enter(run)
    options = serve.ServeOptions(tmp_path / "store.sqlite", "127.0.0.1", 0, False)
    with serve.bound(options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_served_store_leads_from_a_finding_to_the_report_of_its_run(
    browser, address, requests, picture
):
    browser.get("about:blank")
    browser.get(address)
    assert browser.find_element(By.CSS_SELECTOR, ".chart canvas").is_displayed()
    picture("overview")
    browser.find_element(By.CSS_SELECTOR, "table.problems a").click()
    assert "poll" in browser.find_element(By.TAG_NAME, "h1").text
    picture("finding")
    browser.find_element(By.CSS_SELECTOR, 'tbody a[href="/run/3"]').click()
    browser.find_element(By.CSS_SELECTOR, 'a[href="/run/3/report"]').click()
    browser.find_element(By.CSS_SELECTOR, "#heat td.heat-bad a").click()
    assert browser.find_elements(By.CSS_SELECTOR, "#shown h1")
    assert [url for url in requests() if not url.startswith((address, "data:", "blob:"))] == []
