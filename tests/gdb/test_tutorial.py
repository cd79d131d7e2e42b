"""The walk of docs/backwards.md: each of its commands is typed, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.gdb.sessions import debugged, gdb_says, needs_gdb
from tests.guests import GUESTS

ROOT = GUESTS.parent
PAGE = (ROOT / "docs" / "backwards.md").read_text()
IMAGE = str(GUESTS / "images" / "minios-console.elf")
_TYPED = re.compile(r"^    \(gdb\) (.+)\n((?:    (?!\(gdb\)).*\n)*)", re.MULTILINE)


def lines(text: str) -> list[str]:
    """Return the lines that are not empty, with one blank for several."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_guest_fails_as_the_page_says() -> None:
    (shown,) = re.findall(r"^    \$ dbt run --kernel \S+\n    \.\.\.\n((?:    .+\n)+)", PAGE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "dbt", "run", "--kernel", IMAGE], capture_output=True, check=False, timeout=60
    )
    assert lines((done.stdout + done.stderr).decode())[-3:] == lines(shown)


@needs_gdb
def test_each_command_prints_what_the_page_says() -> None:
    typed = [(command, lines(shown)) for command, shown in _TYPED.findall(PAGE)]
    assert len(typed) > 20 and typed[0][0].startswith("target remote ")
    session = [f"directory {ROOT}"]
    for number, (command, _) in enumerate(typed[1:], 1):
        session += [f"echo [{number}]\\n", command]
    with debugged("--history", "--kernel", IMAGE) as (process, place):
        printed = gdb_says(place, session, IMAGE)
        process.wait(60)
    parts = re.split(r"^\[(\d+)\]\n", printed, flags=re.MULTILINE)
    answers = {int(number): lines(text) for number, text in zip(parts[1::2], parts[2::2], strict=True)}
    for number, (command, shown) in enumerate(typed[1:], 1):
        # What a monitor command prints goes another way, and may come before or after.
        where = lines(printed) if "monitor" in command else answers[number]
        assert [line for line in shown if line not in where] == [], (command, where)
