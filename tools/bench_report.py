"""The tables and the plot of tools/bench.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

#: Columns of the table, each of which says how many times as fast the first engine is as the second.
RATIOS = (("warm", "QEMU"), ("warm", "Unicorn"), ("warm", "native"), ("cold", "QEMU"))
WIDTH = 96  # columns of the table, if the terminal is not wider


@dataclass
class Result:
    """The result of one kernel: the guest's ``instructions`` in all rounds, and the wall time of each engine's runs."""

    kernel: str
    rounds: int
    instructions: int
    seconds: dict[str, list[float]]

    def median(self, engine: str) -> float:
        return statistics.median(self.seconds[engine])

    def speed(self, engine: str, other: str) -> float:
        """Return how many times as fast ``engine`` is as ``other``."""
        return self.median(other) / self.median(engine)


def show_results(results: Sequence[Result]) -> None:
    engines = list(results[0].seconds)
    ratios = [ratio for ratio in RATIOS if set(ratio) <= set(engines)]
    table = Table(
        title="seconds of the whole process, median; how many times as fast",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
    )
    table.add_column("kernel", "geom. mean", no_wrap=True)
    table.add_column("M\ninsns", justify="right")
    for engine in engines:
        table.add_column(f"dbt\n{engine}" if engine in ("cold", "warm") else f"\n{engine}", justify="right")
    for ratio in ratios:
        mean = statistics.geometric_mean(result.speed(*ratio) for result in results)
        table.add_column("/\n".join(ratio), f"{mean:.2f}", justify="right")
    for result in results:
        seconds = [f"{result.median(engine):.2f}" for engine in engines]
        speeds = [_speed_cell(result, *ratio) for ratio in ratios]
        table.add_row(result.kernel, f"{result.instructions / 1e6:,.0f}", *seconds, *speeds)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    for engine in ("warm", "cold"):
        if "QEMU" in engines:
            slower = [result.kernel for result in results if _misses(result, engine)]
            print(f"slower than QEMU with a {engine} cache: {', '.join(slower) or 'none'}")


def _misses(result: Result, engine: str) -> bool:
    return result.speed(engine, "QEMU") < 1


def _speed_cell(result: Result, engine: str, other: str) -> str:
    speed = f"{result.speed(engine, other):.2f}"
    return f"[bold red]! {speed}[/]" if other == "QEMU" and _misses(result, engine) else speed


def show_start_up(medians: dict[str, float]) -> None:
    if not medians:
        return
    table = Table(title="start-up, whole process, median", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "seconds", "/threaded"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, seconds in medians.items():
        ratio = seconds / medians["distinct, --tier threaded"]
        table.add_row(name, f"{seconds:.3f}", f"{ratio:.2f}" if name.startswith("distinct") else "")
    Console().print(table)
    print("distinct: 200,000 different instructions, each executed once, with no region in the cache")


# -- the plot ------------------------------------------------------------------------------------


def load_pyplot() -> Any:
    """Return matplotlib's pyplot, which then needs no display."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install -e '.[bench]'") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


_MARKS = {
    "native": ("D", "0.45"),
    "cold": ("o", "tab:cyan"),
    "warm": ("o", "tab:blue"),
    "QEMU": ("s", "tab:orange"),
    "Unicorn": ("^", "tab:red"),
}


def write_plot(pyplot: Any, results: Sequence[Result], path: Path) -> None:
    """Plot for each kernel the speed of each engine relative to QEMU's or, if that is missing, to dbt's."""
    engines = list(results[0].seconds)
    other = "QEMU" if "QEMU" in engines else "warm"
    rows = sorted(results, key=lambda result: result.speed("warm", "native" if "native" in engines else other))
    figure, axes = pyplot.subplots(figsize=(8, 1.6 + 0.3 * len(rows)), layout="constrained")
    for engine in engines:
        mark, color = _MARKS[engine]
        name = f"dbt {engine}" if engine in ("cold", "warm") else engine
        axes.plot(_speeds(rows, engine, other), range(len(rows)), mark, color=color, label=name)
    axes.axvline(1, color=_MARKS[other][1], linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda speed, _: f"{speed:g}")
    axes.set_yticks(range(len(rows)), [result.kernel for result in rows])
    axes.set_xlabel(f"speed, {other if other == 'QEMU' else 'dbt'} = 1")
    axes.grid(axis="both", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=len(engines), frameon=False)
    figure.savefig(path, dpi=150)


def _speeds(results: Iterable[Result], engine: str, other: str) -> list[float]:
    return [result.speed(engine, other) for result in results]
