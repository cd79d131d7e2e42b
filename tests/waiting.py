"""Waiting for what happens in another process or thread, on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

#: Seconds after which what is waited for is taken not to come. Nothing takes so long on any machine.
BOUND_S = 120.0
_PAUSE_S = 0.01

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Call ``condition`` until what it returns is true, and return that. Fails with ``what`` after BOUND_S seconds."""
    deadline = time.monotonic() + BOUND_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {BOUND_S:.0f} s for {what}"
        time.sleep(_PAUSE_S)
    return found


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
