"""What a process takes of the host's memory."""

from __future__ import annotations

from pathlib import Path


def private_dirty_kb(pid: int | str = "self") -> int:
    """Return what a process has written and shares with no other, in KiB (Private_Dirty of proc(5), smaps_rollup).

    Raise OSError if it has ended, or the host's kernel does not tell.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise OSError("the host's kernel does not tell Private_Dirty")
