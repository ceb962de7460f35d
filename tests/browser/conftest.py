"""Debian's Chromium, without a window; it is there once `make test` has installed packages."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

OPTIONS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1600")


@pytest.fixture(scope="module")
def browser():
    """One browser for a file's tests, so that none is left while guests run; it logs requests."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for option in OPTIONS:
        options.add_argument(option)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root otherwise
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def requests(browser):
    """The addresses that pages have asked for since the test began: a function."""
    browser.get_log("performance")

    def asked():
        messages = [
            json.loads(each["message"])["message"] for each in browser.get_log("performance")
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    return asked


PICTURES = pytest.StashKey[Path]()


def pytest_terminal_summary(terminalreporter, config):
    """Say where the pictures are."""
    if PICTURES in config.stash:
        terminalreporter.write_line(f"screenshots: {config.stash[PICTURES]}")


@pytest.fixture
def picture(request, browser):
    """Keeps a picture of what is shown: a function of its name; in SCREENSHOTS, or pytest's cache.

    They stay when the test has ended, until those of the next run replace them.
    """
    kept = request.config.cache.mkdir("screenshots")
    folder = Path(os.environ.get("SCREENSHOTS") or kept)
    folder.mkdir(parents=True, exist_ok=True)
    request.config.stash[PICTURES] = folder

    def keep(name):
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', request.node.name)}-{name}.png"
        assert browser.save_screenshot(str(path))

    return keep
