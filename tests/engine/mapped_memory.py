"""What this process has of files in memory that it has mapped (proc(5), smaps)."""

from __future__ import annotations

import re
from pathlib import Path


def mapped_kb(name: str, kind: str) -> int:
    """Return how much of the files of this name is mapped, in KiB, and is of a kind: ``Rss``, ``Anonymous``, ..."""
    found, is_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-", line):
            is_file = name in line
        elif is_file and line.startswith(f"{kind}:"):
            found += int(line.split()[1])
    return found
