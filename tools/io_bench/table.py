"""The rows of ``make bench-io``: what was measured of each engine, and whether dbt is as fast as is asked."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from real_programs.processes import Times

QEMU, FIRST, SECOND = "QEMU", "first", "second"
ENGINES: Final = (QEMU, FIRST, SECOND)
_CLOCKS: Final = ("wall", "cpu")


@dataclass
class Row:
    """What one thing took in each engine. ``amount`` is how much of ``unit`` was done.

    ``limits`` says of some of dbt's runs how long they may take, compared with QEMU. ``most_us`` is the longest time
    of one access in microseconds of CPU time, if that is limited. ``failure`` says why there are no times.
    """

    title: str
    amount: float = 0
    unit: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    most_us: float | None = None
    times: dict[str, list[Times]] = field(default_factory=dict)
    failure: str = ""

    def add(self, engine: str, times: Times) -> None:
        self.times.setdefault(engine, []).append(times)

    def median(self, engine: str, clock: str) -> float:
        """Return the median of an engine's times in seconds, by the wall or of the CPU."""
        return statistics.median(times.clock(clock) for times in self.times[engine])

    def each_us(self, engine: str) -> float:
        """Return the CPU time of one of the amount, in microseconds."""
        return self.median(engine, "cpu") / self.amount * 1e6

    def missed(self) -> list[str]:
        """Return what is slower than it may be, in words."""
        found = []
        for engine, limit in self.limits.items():
            if engine not in self.times or QEMU not in self.times:
                continue
            for clock in _CLOCKS:
                ratio = self.median(engine, clock) / max(self.median(QEMU, clock), 1e-9)
                if ratio > limit:
                    found.append(f"{engine} {clock} {ratio:.2f}x")
        if self.most_us is not None and SECOND in self.times and self.each_us(SECOND) > self.most_us:
            found.append(f"{self.each_us(SECOND):.2f} us each")
        return found

    @property
    def verdict(self) -> str:
        if self.failure:
            return "NOT MEASURED"
        if not self.times or (self.limits and QEMU not in self.times):
            return "not compared"
        return "MISSED: " + ", ".join(missed) if (missed := self.missed()) else "holds"

    @property
    def asked(self) -> str:
        """What is asked, in words."""
        words = [f"{engine} at most {limit:g} x QEMU" for engine, limit in self.limits.items()]
        return ", ".join(words + ([] if self.most_us is None else [f"at most {self.most_us:g} us each"]))

    def line(self) -> str:
        """Return the row as text: wall and CPU time in seconds of each engine, what is asked, and the verdict."""
        if self.failure:
            return f"{self.title:42} {self.verdict}: {self.failure}"
        cells = []
        for engine in ENGINES:
            cells.append(
                f"{self.median(engine, 'wall'):8.3f} {self.median(engine, 'cpu'):7.3f}"
                if engine in self.times
                else " " * 16
            )
        each = f"{self.each_us(SECOND):9.2f}" if self.amount and SECOND in self.times else " " * 9
        return f"{self.title:42}{' '.join(cells)} {each}  {self.verdict}"


HEADING: Final = (
    f"{'seconds: wall, and CPU of all processes':42}{QEMU:>16} {FIRST:>16} {SECOND:>16} {'us each':>9}  verdict"
)


@dataclass
class Report:
    """All rows, and where and how they were measured."""

    machine: dict[str, str | None]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        rows = [{**asdict(row), "asked": row.asked, "verdict": row.verdict} for row in self.rows]
        path.write_text(json.dumps({"machine": self.machine, "options": self.options, "rows": rows}, indent=2) + "\n")
