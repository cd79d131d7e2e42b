"""The results: how they are kept in a file, and the tables that are made of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from real_programs.processes import Times

PEER = "QEMU"
_WIDTH = 110  # columns of a table, if the terminal is not wider


@dataclass
class Result:
    """The result of one program. ``times`` has the runs of each engine; ``failure`` says what went wrong, if anything.

    ``instructions`` is the number that the guest executed, or None if it is not known.
    """

    name: str
    version: str
    instructions: int | None = None
    times: dict[str, list[Times]] = field(default_factory=dict)
    failure: str | None = None

    def median(self, engine: str, clock: str) -> float:
        """Return the median of an engine's times in seconds. ``clock`` is ``wall``, ``user`` or ``cpu``."""
        return statistics.median(times.clock(clock) for times in self.times[engine])

    def ratio(self, engine: str, peer: str, clock: str) -> float:
        """Return the time of ``engine`` relative to that of ``peer``: below 1, it is faster."""
        return self.median(engine, clock) / self.median(peer, clock)


@dataclass
class Report:
    """All results of a benchmark, and where and with which options they were measured."""

    machine: dict[str, str | None]
    options: dict[str, Any]
    programs: list[Result] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_report(path: Path) -> Report:
    """Read a report that :meth:`Report.save` wrote. Raises ValueError if the file is something else."""
    try:
        content = json.loads(path.read_text())
        programs = [_load_result(each) for each in content["programs"]]
        return Report(content["machine"], content["options"], programs)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a report of this benchmark: {error}") from None


def _load_result(content: dict[str, Any]) -> Result:
    times = {engine: [Times(**run) for run in runs] for engine, runs in content["times"].items()}
    return Result(content["name"], content["version"], content["instructions"], times, content["failure"])


# -- tables --------------------------------------------------------------------------------------


def show_programs(results: Sequence[Result], console: Console) -> None:
    """Print the table of the bare-metal programs, its geometric means, the worst of each run, and the failures."""
    measured = [result for result in results if result.failure is None]
    if measured:
        engines = [engine for engine in measured[0].times if engine != PEER]
        peer = PEER in measured[0].times
        console.print(_program_table(measured, engines, peer))
        if peer:
            for clock in ("wall", "cpu"):
                console.print(_worst(measured, engines, clock))
    for result in results:
        if result.failure is not None:
            console.print(f"FAILED {result.name}: {result.failure}", markup=False, highlight=False)


def _program_table(results: Sequence[Result], engines: Sequence[str], peer: bool) -> Table:
    table = Table(
        title=f"seconds of {PEER}, and dbt's relative to them: below 1, dbt is faster" if peer else "seconds",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
    )
    table.add_column("program", "geom. mean", no_wrap=True)
    table.add_column("M\ninsns", justify="right")
    columns = [(engine, clock) for clock in ("wall", "cpu") for engine in ([PEER] if peer else []) + list(engines)]
    for engine, clock in columns:
        footer = ""
        if peer and engine != PEER:
            footer = f"{statistics.geometric_mean(result.ratio(engine, PEER, clock) for result in results):.2f}"
        table.add_column(f"{engine}\n{clock}", footer, justify="right")
    for result in results:
        cells = (
            f"{result.median(engine, clock):.2f}"
            if engine == PEER or not peer
            else f"{result.ratio(engine, PEER, clock):.2f}"
            for engine, clock in columns
        )
        insns = "" if result.instructions is None else f"{result.instructions / 1e6:.0f}"
        table.add_row(result.name, insns, *cells)
    return table


def _worst(results: Sequence[Result], engines: Sequence[str], clock: str) -> str:
    parts = []
    for engine in engines:
        worst = max(results, key=lambda result: result.ratio(engine, PEER, clock))
        parts.append(f"{engine} {worst.name} {worst.ratio(engine, PEER, clock):.2f}")
    return f"worst in {clock}: {', '.join(parts)}"


def show_report(report: Report) -> None:
    """Print everything."""
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)
    show_programs(report.programs, console)
    console.print(
        ", ".join(f"{name}: {value or 'none'}" for name, value in report.machine.items()), markup=False, highlight=False
    )
