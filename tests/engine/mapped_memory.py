"""What this process has of files in memory that it has mapped (proc(5), smaps)."""

from __future__ import annotations

import re
from pathlib import Path

_HEADER = re.compile(r"([0-9a-f]+)-")


def mapped_kb(name: str, kind: str, at: int | None = None) -> int:
    """Return how much of the files of this name is mapped, in KiB, and is of a kind: ``Rss``, ``Anonymous``, ... Only
    what is mapped ``at`` an address counts, if there is one.
    """
    found, is_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if header := _HEADER.match(line):
            is_file = name in line and at in (None, int(header[1], 16))
        elif is_file and line.startswith(f"{kind}:"):
            found += int(line.split()[1])
    return found
