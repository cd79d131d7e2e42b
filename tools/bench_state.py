"""What it costs to save, restore, fork and roll back a machine, with the limits that are wanted for Linux at its shell.

    python tools/bench_state.py [--linux DIR] [--runs N] [--json FILE]

DIR is what `make linux` builds, or has a zImage and an initramfs whose shell prints `/ #`. Without one the guest is
minios. Times are medians of N in milliseconds; those in one process are of this process, start-up is of whole processes
that take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench import HELLO, machine
from dbt_command import DBT, checkout_environment

from dbt import CaptureConsole, Machine, VmState, read_snapshot, write_snapshot
from dbt.abi.layout import PAGE_SHIFT
from dbt.memory.ram_image import RamImage

ROOT = Path(__file__).resolve().parents[1]
MINIOS = ROOT / "guests/images/minios-armv5te-O2.elf"
MINIOS_ICOUNT = 700_000
_PROMPT = b"/ #"
_STEP, _MOST = 50_000_000, 6_000_000_000
#: Instructions after the prompt, so that what the kernel does in the background has come to rest.
_SETTLE = 200_000_000
_CHANGED_PAGES = 500
_CLONE_FUEL = 1_000_000
#: The pages, and the instructions, after which a machine is rolled back.
_DIRTY_PAGES, _ROUND_FUEL = 64, 500_000


class Figure(NamedTuple):
    """A figure: what it is of, its values, their unit, and the limit for the median, or None."""

    name: str
    values: list[float]
    unit: str
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)


# -- the guest -------------------------------------------------------------------------------------


def booted(linux: Path | None) -> Machine:
    """Return a machine with Linux at its shell, or with minios."""
    console = CaptureConsole()
    if linux is None:
        guest = Machine(tier="threaded", console=console)
        guest.load(MINIOS)
        guest.run(fuel=MINIOS_ICOUNT)
        return guest
    initrds = sorted(linux.glob("initramfs*.cpio.gz")) or sorted(linux.glob("initrd*"))
    if not initrds or not (linux / "zImage").exists():
        raise SystemExit(f"{linux}: there is no zImage with an initramfs*.cpio.gz here")
    guest = Machine(console=console)
    guest.load_kernel(linux / "zImage", initrd=initrds[0], append="console=ttyAMA0")
    while _PROMPT not in console.output:
        guest.run(fuel=_STEP)
        if guest.icount > _MOST:
            raise SystemExit(f"{linux}: no shell after {_MOST:,} instructions; it printed:\n{console.output.decode()}")
    guest.run(fuel=_SETTLE)
    return guest


def changed(state: VmState) -> tuple[VmState, list[int]]:
    """Return a state with some other bytes in 500 pages, or in as many as there are, and the numbers of these pages."""
    pages = state.ram.pages
    wanted = set(pages[:: max(1, len(pages) // _CHANGED_PAGES)][:_CHANGED_PAGES])

    def parts() -> Iterator[tuple[int, bytes]]:
        for gpa, page in state.ram.nonzero_pages():
            yield gpa, os.urandom(16) + page[16:] if gpa >> PAGE_SHIFT in wanted else page

    return VmState(state.values, RamImage(state.ram.layout, parts())), sorted(wanted)  # type: ignore[arg-type]


# -- measurements ----------------------------------------------------------------------------------


def timed(work: Callable[[], object], runs: int) -> list[float]:
    """Return the milliseconds that a function takes, after one call that is not counted."""
    found = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        result = work()
        found.append((time.perf_counter() - started) * 1e3)
        if hasattr(result, "close"):
            result.close()
    return found[1:]


def in_process(guest: Machine, folder: Path, runs: int) -> Iterator[Figure]:
    """Yield the figures of this process."""
    whole, increment = folder / "whole", folder / "increment"

    def save() -> str:
        with guest.save() as state:
            return write_snapshot(state, whole)

    yield Figure("save in memory", timed(guest.save, runs), "ms")
    yield Figure("save to a file", timed(save, runs), "ms", 150)
    yield Figure("size of the file", [whole.stat().st_size / (1 << 20)], "MiB")
    with guest.save() as state:
        other, pages = changed(state)
        known = timed(lambda: write_snapshot(other, increment, whole, pages), runs)
        yield Figure(f"increment of {len(pages)} pages, known", known, "ms", 10)
        with read_snapshot(whole):  # so that the comparison needs no file
            found = timed(lambda: write_snapshot(other, increment, whole), runs)
            yield Figure(f"increment of {len(pages)} pages, found", found, "ms")
        other.close()
    yield Figure("read a file", timed(lambda: read_snapshot(whole), runs), "ms")
    yield Figure("read an increment", timed(lambda: read_snapshot(increment), runs), "ms")
    with read_snapshot(whole) as state:
        restore = timed(lambda: Machine.restore(state, console=CaptureConsole()), runs)
        yield Figure("restore from memory", restore, "ms", 10)
    yield Figure("fork", timed(lambda: guest.fork(console=CaptureConsole()), runs), "ms", 10)
    yield Figure(f"private memory of a fork after {_CLONE_FUEL:,}", clone_memory(guest), "MB", 6)
    yield Figure("checkpoint", timed(guest.checkpoint, runs), "ms")
    yield rollbacks(f"rollback of {_DIRTY_PAGES} pages", guest, lambda: touch(guest, _DIRTY_PAGES), runs, 100)
    yield rollbacks(f"rollback of {_ROUND_FUEL:,} instructions", guest, lambda: guest.run(fuel=_ROUND_FUEL), runs)


def rollbacks(name: str, guest: Machine, work: Callable[[], object], runs: int, limit: float | None = None) -> Figure:
    """Return the microseconds that a rollback takes after ``work``. The first one is not counted."""
    found, pages = [], 0
    with guest.checkpoint() as checkpoint:
        for _ in range(10 * runs + 1):
            work()
            pages = len(checkpoint.dirty_pages())
            started = time.perf_counter()
            guest.rollback(checkpoint)
            found.append((time.perf_counter() - started) * 1e6)
    return Figure(f"{name} ({pages} dirty)", found[1:], "us", limit)


def touch(guest: Machine, count: int) -> None:
    """Write to so many pages, without a change."""
    for gpa in range(guest.ram.layout.main.base, guest.ram.layout.main.end, guest.ram.size // count):
        guest.write(gpa, guest.read(gpa, 1))


def clone_memory(guest: Machine) -> list[float]:
    """Return the memory in MB that a fork has for itself after its first million instructions."""
    before = private_dirty()
    with guest.fork(console=CaptureConsole()) as clone:
        clone.run(fuel=_CLONE_FUEL)
        return [(private_dirty() - before) / 1e3]


def private_dirty() -> int:
    """Return the memory that this process shares with no other and has written, in kB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def start_up(folder: Path, runs: int) -> Iterator[Figure]:
    """Yield the time of whole processes that execute one instruction: of hello, and of a machine that is restored."""
    commands = {
        "start hello": [*DBT, "run", "--fuel", "1", str(HELLO)],
        "start --restore": [*DBT, "run", "--fuel", "1", "--restore", str(folder / "whole")],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                env=checkout_environment(),
                check=False,
            )
            if turn:
                taken[name].append((time.perf_counter() - started) * 1e3)
    hello = Figure("start hello", taken["start hello"], "ms")
    yield hello
    yield Figure("start --restore", taken["start --restore"], "ms", hello.median + 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linux", type=Path, help="a directory with a zImage and an initramfs")
    parser.add_argument("--runs", type=int, default=9, help="of each, of which the median counts")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    options = parser.parse_args()
    host = machine()
    print(", ".join(f"{name}: {value or 'none'}" for name, value in host.items()))
    figures = []
    with tempfile.TemporaryDirectory() as name, booted(options.linux) as guest:
        print(f"{'Linux' if options.linux else 'minios'} at instruction {guest.icount:,}")
        folder = Path(name)
        for figure in (*in_process(guest, folder, options.runs), *start_up(folder, options.runs)):
            figures.append(figure)
            limit = "" if figure.limit is None else f"  at most {figure.limit:.0f}"
            missed = "  MISSED" if figure.limit is not None and figure.median > figure.limit else ""
            print(f"{figure.name:44}{figure.median:10.2f} {figure.unit:3}{limit if options.linux else ''}{missed}")
    if options.json:
        rows = [{**figure._asdict(), "median": figure.median} for figure in figures]
        options.json.write_text(json.dumps({"machine": host, "figures": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
