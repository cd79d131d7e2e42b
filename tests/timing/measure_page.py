"""How long a trace's page takes to open."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.guests import GUESTS
from tests.trace.browser import CHROMIUM, DRIVER, MISSING, browser_window, click, open_page, write_large_page
from tests.trace.recordings import record

pytest.importorskip("selenium", reason="no selenium: pip install -e '.[test]'")


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
def test_a_hundred_thousand_blocks_open_in_two_seconds(tmp_path: Path) -> None:
    image = GUESTS / "bench" / "images" / "objects.elf"
    _, _, trace = record(tmp_path / "t", image, block_counters=True, fuel=20_000_000)
    path = tmp_path / "large.html"
    write_large_page(trace, path)
    with browser_window() as browser:
        started = time.monotonic()
        open_page(browser, path)
        click(browser, "input[value=blocks]")
        assert browser.execute_script("return table.shown.length") == 100_000
        assert time.monotonic() - started < 2
