"""What pull, push and build tell of their progress: the JSON messages of docker, as plain values."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

#: Is told of each step. It must not wait.
Report: TypeAlias = Callable[[dict[str, Any]], None]

_BAR: Final = 50
_RARELY_S: Final = 0.1
_STEP: Final = 512 << 10
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def status(text: str, id: str | None = None) -> dict[str, Any]:
    """Return a line of text, which may belong to something."""
    return {"status": text} if id is None else {"status": text, "id": id}


def short(digest: str) -> str:
    """Return what messages call something with a digest."""
    return digest.removeprefix("sha256:")[:12]


def action(text: str, id: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    """Return what happens to a layer, and how far that is, in bytes."""
    if current <= 0 and total <= 0:
        return {"status": text, "progressDetail": {}, "id": id}
    detail = {"current": current, "total": total} if total > 0 else {"current": current}
    return {"status": text, "progressDetail": detail, "progress": bar(current, total), "id": id}


def bar(current: int, total: int) -> str:
    """Return the bar with numbers that docker's command shows."""
    if total <= 0:
        return f"{human_size(current):>8}"
    done = min(int(current / total * 100) // 2, _BAR)
    numbers = f"{human_size(current):>8}" + ("" if current > total else f"/{human_size(total)}")
    return f"[{'=' * done}>{' ' * (_BAR - done)}] {numbers}"


def human_size(size: float) -> str:
    """Return a size as docker writes it: four digits and a decimal unit."""
    step = 0
    while size >= 1000 and step < len(_UNITS) - 1:
        size /= 1000
        step += 1
    return f"{size:.4g}{_UNITS[step]}"


class Meter:
    """Reports how far something is, not more often than a terminal can show it."""

    def __init__(self, report: Report, text: str, id: str, total: int) -> None:
        self._report = report
        self._text = text
        self._id = id
        self._total = total
        self._step = min(_STEP, total // 100)
        self._told = 0
        self._when = float("-inf")

    def at(self, current: int) -> None:
        """Say that ``current`` bytes are done."""
        now = time.monotonic()
        is_end = current == self._total
        if current - self._told > self._step and (is_end or now - self._when >= _RARELY_S):
            self._told, self._when = current, now
            self._report(action(self._text, self._id, current, self._total))
