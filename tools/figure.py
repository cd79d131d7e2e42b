"""A figure of a benchmark: its name, its values, and what is asked of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Figure(NamedTuple):
    """What was measured: the name of a figure, its values, their unit, and the limit for the median, or None."""

    name: str
    values: list[float]
    unit: str
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def row(self) -> str:
        """Return the figure as a line of text, with what is asked and whether it holds."""
        line = f"{self.name:56}{self.median:10.2f} {self.unit:5}"
        if self.limit is None:
            return line.rstrip()
        return f"{line}  at most {self.limit:6.1f}  {'holds' if self.median <= self.limit else 'MISSED'}"


def timed(
    work: Callable[[], object], runs: int, before: Callable[[], object] = lambda: None, skipped: int = 1
) -> list[float]:
    """Return the milliseconds that a function takes, ``runs`` times. What it returns is closed.

    The first ``skipped`` calls are not counted. ``before`` is called before each call, and its time is not counted.
    """
    found = []
    for _ in range(runs + skipped):
        before()
        started = time.perf_counter()
        result = work()
        found.append((time.perf_counter() - started) * 1e3)
        if hasattr(result, "close"):
            result.close()
    return found[skipped:]
