"""A Chromium that is driven by selenium, where both are installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbt.trace.html import report
from dbt.trace.model import Trace
from tests.waiting import wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "no Chromium: install Debian's chromium and chromium-driver"


@contextmanager
def browser_window() -> Iterator[Any]:
    """A window of 1600 by 1000 pixels; selenium's driver for it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM is not None and DRIVER is not None, MISSING
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: Any, path: Path) -> None:
    """Open a file, and wait until the page can be used."""
    browser.get(path.as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready === 'yes'")


def wait_for(browser: Any, script: str) -> Any:
    return wait_until(lambda: browser.execute_script(script), script)


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def write_large_page(trace: Trace, path: Path) -> None:
    """Write the page of a trace, with a hundred thousand blocks made up in the place of its own."""
    text = report(trace, [])
    head, opening, rest = text.partition('<script id="data" type="application/json">')
    data, closing, tail = rest.partition("</script>")
    found = json.loads(data)
    number, names = found["regions"][0]["number"], 1000
    found["names"] = [f"function_{n}" for n in range(names)]
    found["blocks"] = [[number, n, 4 * n, 1 + n % 60, n * 7 % 100_003, n % names, n % 128] for n in range(100_000)]
    path.write_text(head + opening + json.dumps(found) + closing + tail, encoding="utf-8")
