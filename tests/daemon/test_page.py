"""The web page: who may ask what, and the page in a real Chromium, with the shares and the console of a machine.

Debian's packages are chromium and chromium-driver. DBT_SCREENSHOTS names a directory for pictures of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.command import ROOT
from tests.daemon.daemons import TestDaemon
from tests.trace.browser import CHROMIUM, DRIVER, MISSING, browser_window, click, wait_for

_NEEDS_BROWSER = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("selenium", reason="no selenium: pip install -e '.[test]'")
    with browser_window() as window:
        yield window


def _status(url: str, method: str, path: str, **headers: str) -> int:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request(method, path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_who_has_the_token_may_ask(daemon: TestDaemon) -> None:
    url = daemon.ok("page").strip()
    token = urlsplit(url).fragment
    assert urlsplit(url).hostname == "127.0.0.1"
    assert _status(url, "GET", "/") == 200
    for path in ("/v1", "/v1/domains", "/metrics", f"/v1?token={token}", "/v1/openapi.json"):
        assert _status(url, "GET", path) == 401
    assert _status(url, "POST", "/v1/stop", Authorization="Bearer x", Cookie=f"token={token}") == 401
    assert _status(url, "GET", "/v1", Authorization=f"Bearer {token}") == 200
    assert daemon.ok("page").strip() == url


def test_the_page_is_one_file_that_asks_for_nothing_outside() -> None:
    text = (ROOT / "dbt" / "daemon" / "page" / "index.html").read_text()
    assert not re.findall(r"https?://|src=|<link|@import|url\(", text)


@_NEEDS_BROWSER
def test_the_page_shows_shares_and_carries_a_console(daemon: TestDaemon, browser: Any) -> None:
    daemon.define("spins", "spinner", ["[share]", "cap = 0.25"])
    daemon.define("letters", "letters")
    browser.get(daemon.ok("page").strip())
    wait_for(browser, "return document.documentElement.dataset.ready === 'yes'")
    click(browser, "tr[data-name=spins] .start")
    bar = "document.querySelector('tr[data-name=spins] .track i')"
    assert wait_for(browser, f"return parseFloat({bar}.style.width)") <= 25

    daemon.ok("start", "letters")
    click(browser, "tr[data-name=letters] .console")
    browser.find_element("css selector", "#screen").send_keys("xyz")
    wait_for(browser, "return document.querySelector('#screen').textContent.startsWith('ABC')")
    if pictures := os.environ.get("DBT_SCREENSHOTS"):
        browser.save_screenshot(str(Path(pictures) / "vms.png"))
    daemon.ok("destroy", "letters")
    wait_for(browser, "return document.querySelector('#screen').textContent.includes('the machine has ended')")
    complaints = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
    assert not complaints


@_NEEDS_BROWSER
def test_the_page_says_what_went_wrong_and_forgets_what_is_gone(daemon: TestDaemon, browser: Any) -> None:
    missing = daemon.folder / "missing.toml"
    missing.write_text('name = "m"\n[machine]\nkernel = "nowhere"\n')
    daemon.ok("define", missing)
    browser.get("about:blank")
    browser.get(daemon.ok("page").strip())
    wait_for(browser, "return document.querySelector('tr[data-name=m] .start') !== null")
    click(browser, "tr[data-name=m] .start")
    wait_for(browser, "return document.querySelector('#error').textContent.includes('the domain m cannot start')")
    daemon.ok("undefine", "m")
    wait_for(browser, "return document.querySelector('tr[data-name=m]') === null")
    browser.get_log("browser")


@_NEEDS_BROWSER
def test_the_console_of_the_page_knows_what_a_line_editor_sends(browser: Any) -> None:
    browser.get((ROOT / "dbt" / "daemon" / "page" / "index.html").as_uri())
    script = """
        const screen = new Screen();
        for (const text of arguments[0]) screen.write(text);
        screen.show(document.getElementById('screen'));
        return document.getElementById('screen').textContent.trimEnd();
    """
    for pieces, shown in (
        (["/ # \x1b[6nls -l\b \b\b", "\x1b[J"], "/ # ls"),
        (["12345\rab\x1b[K\r\nnext"], "ab\nnext"),
        (["\x1b[1", ";34mbin\x1b[m"], "bin"),
        (["a\tb\x1b[3Dc"], "a     c b"),
    ):
        assert browser.execute_script(script, pieces) == shown
    browser.get_log("browser")
