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

QEMU = "QEMU"
QEMU_USER = "qemu-arm"
#: With it begin the names of the engines of another checkout.
OLD = "old "
#: The engines that dbt is compared with: qemu-system-arm, and QEMU's user mode.
PEERS = (QEMU, QEMU_USER)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: its title, and the clocks by which its cases are compared."""

    title: str
    clocks: tuple[str, ...]


PARTS = {
    "programs": Part("bare metal", ("wall", "cpu")),
    "linux": Part("inside Linux", ("wall", "user", "cpu")),
}

#: The tiers that execute one instruction at a time, as dbt's report names them.
_SINGLE = ("threaded", "reference", "machine")
_WIDTH = 124  # columns of a table, if the terminal is not wider


@dataclass
class Result:
    """The result of one case of a part.

    ``times`` has the runs of each engine. ``failure`` says what went wrong, if anything did. ``tiers`` says for each of
    dbt's engines how many instructions each tier executed in the latest run.
    """

    part: str
    name: str
    version: str
    times: dict[str, list[Times]] = field(default_factory=dict)
    failure: str | None = None
    tiers: dict[str, dict[str, int]] = field(default_factory=dict)

    def median(self, engine: str, clock: str) -> float:
        """Return the median of an engine's times in seconds. ``clock`` is ``wall``, ``user`` or ``cpu``."""
        return statistics.median(times.clock(clock) for times in self.times[engine])

    def ratio(self, engine: str, peer: str, clock: str) -> float:
        """Return the time of ``engine`` relative to that of ``peer``: below 1, it is faster."""
        return self.median(engine, clock) / self.median(peer, clock)

    def compiled(self, engine: str) -> str:
        """Return the percentages of the instructions that each compiling tier executed in a dbt's latest run."""
        tiers = self.tiers[engine]
        whole = sum(tiers.values())
        return "+".join(f"{100 * number / whole:.0f}" for name, number in tiers.items() if name not in _SINGLE)


@dataclass
class Report:
    """All results of a benchmark, and where and with which options they were measured."""

    machine: dict[str, str | None]
    options: dict[str, Any]
    results: list[Result] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_report(path: Path) -> Report:
    """Read a report that :meth:`Report.save` wrote. Raises ValueError if the file is something else."""
    try:
        content = json.loads(path.read_text())
        results = [_load_result(each) for each in content["results"]]
        return Report(content["machine"], content["options"], results)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a report of this benchmark: {error}") from None


def _load_result(content: dict[str, Any]) -> Result:
    times = {engine: [Times(**run) for run in runs] for engine, runs in content["times"].items()}
    return Result(**{**content, "times": times})


# -- tables --------------------------------------------------------------------------------------


def _show_part(results: Sequence[Result], part: Part, peer: str, console: Console) -> None:
    """Print a table of the results that have ``peer`` for each dbt, and the worst of each of its runs."""
    measured = [result for result in results if result.failure is None and peer in result.times]
    if not measured:
        return
    engines = [engine for engine in measured[0].times if engine not in PEERS]
    old = [engine for engine in engines if engine.startswith(OLD)]
    for mine in (engines[: len(engines) - len(old)], old):
        if mine:
            console.print(_table(measured, mine, part, peer))
            if peer in PEERS:
                for clock in part.clocks:
                    console.print(_worst(measured, mine, clock, peer), highlight=False)
    for engine in old:
        means = (f"{clock} {_mean(measured, engine.removeprefix(OLD), engine, clock):.2f}" for clock in part.clocks)
        console.print(f"{engine.removeprefix(OLD)} run relative to the old one's: {', '.join(means)}", highlight=False)


def _mean(results: Sequence[Result], engine: str, peer: str, clock: str) -> float:
    return statistics.geometric_mean(result.ratio(engine, peer, clock) for result in results)


def _table(results: Sequence[Result], engines: Sequence[str], part: Part, peer: str) -> Table:
    """Return the table of dbt's times relative to those of ``peer``, or of seconds, if that is dbt's first run."""
    compared = peer in PEERS
    dbt = "the old dbt" if engines[0].startswith(OLD) else "dbt"
    said = f"seconds of {peer}, {dbt}'s relative to them (below 1: faster)" if compared else f"seconds of {dbt}"
    table = Table(
        title=f"{part.title}: {said}, % of instructions in compiled code",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
    )
    table.add_column("program", "geom. mean", no_wrap=True)
    table.add_column("M\ninsns", justify="right")
    columns = [(engine, clock) for clock in part.clocks for engine in ([peer] if compared else []) + list(engines)]
    for engine, clock in columns:
        footer = ""
        if compared and engine != peer:
            footer = f"{_mean(results, engine, peer, clock):.2f}"
        table.add_column(f"{engine.removeprefix(OLD)}\n{clock}", footer, justify="right")
    for engine in engines:
        table.add_column(f"{engine.removeprefix(OLD)}\n%", justify="right")
    for result in results:
        cells = (
            f"{result.median(engine, clock):.2f}"
            if engine == peer or not compared
            else f"{result.ratio(engine, peer, clock):.2f}"
            for engine, clock in columns
        )
        insns = f"{sum(result.tiers[engines[0]].values()) / 1e6:.0f}"
        compiled = (result.compiled(engine) for engine in engines)
        table.add_row(result.name, insns, *cells, *compiled)
    return table


def _worst(results: Sequence[Result], engines: Sequence[str], clock: str, peer: str) -> str:
    parts = []
    for engine in engines:
        worst = max(results, key=lambda result: result.ratio(engine, peer, clock))
        slower = sum(result.ratio(engine, peer, clock) > 1 for result in results)
        parts.append(f"{engine} {worst.name} {worst.ratio(engine, peer, clock):.2f} ({slower} slower)")
    return f"worst in {clock}, and how many of {len(results)} are slower than {peer}: {', '.join(parts)}"


def show_report(report: Report) -> None:
    """Print a table for each part and peer, the failures, and the machine."""
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)
    for name, part in PARTS.items():
        results = [result for result in report.results if result.part == name]
        engines = {engine for result in results for engine in result.times}
        for peer in [peer for peer in PEERS if peer in engines] or ["first"]:
            _show_part(results, part, peer, console)
        for result in results:
            if result.failure is not None:
                console.print(f"FAILED {result.name}: {result.failure}", markup=False, highlight=False)
    said = ", ".join(f"{name}: {value or 'none'}" for name, value in report.machine.items())
    console.print(said, markup=False, highlight=False)
