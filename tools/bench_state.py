"""What it costs to save, restore, fork and roll back a machine, to record its history and to go back in it.

    python tools/bench_state.py [--linux DIR] [--runs N] [--json FILE]

DIR is what `make linux` builds, or has a zImage and an initramfs whose shell prints `/ #`. Without one the guest is
minios, and only histories have limits, because the others are meant for Linux. Figures are medians of N; times are of
this process, and start-up is of whole processes that take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bench_history
from bench import HELLO, machine
from dbt_command import DBT, checkout_environment
from figure import Figure, timed
from host_memory import private_dirty_kb

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
_CLONES, _CLONE_FUEL = 100, 1_000_000
#: Instructions of Linux between two copies of its state, those of minios, which soon ends, and how often the guest is
#: booted for its first fork.
_BETWEEN, _BETWEEN_MINIOS, _BOOTS = 1_000_000, 1_000, 5
#: The pages, and the instructions, after which a machine is rolled back.
_DIRTY_PAGES, _ROUND_FUEL = 64, 500_000
#: More bytes than the host's caches hold.
_CACHES = 64 << 20


# -- the guest -------------------------------------------------------------------------------------


def begun(linux: Path | None) -> Machine:
    """Return a machine at the beginning of Linux, or of minios."""
    if linux is None:
        guest = Machine(console=CaptureConsole())
        guest.load(MINIOS)
        return guest
    initrds = sorted(linux.glob("initramfs*.cpio.gz")) or sorted(linux.glob("initrd*"))
    if not initrds or not (linux / "zImage").exists():
        raise SystemExit(f"{linux}: there is no zImage with an initramfs*.cpio.gz here")
    guest = Machine(console=CaptureConsole())
    guest.load_kernel(linux / "zImage", initrd=initrds[0], append="console=ttyAMA0")
    return guest


def booted(linux: Path | None) -> Machine:
    """Return a machine with Linux at its shell, or with minios."""
    guest = begun(linux)
    if linux is None:
        guest.run(fuel=MINIOS_ICOUNT)
        return guest
    console = guest.console
    assert isinstance(console, CaptureConsole)
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


def in_process(guest: Machine, folder: Path, runs: int, between: int) -> Iterator[Figure]:
    """Yield the figures of this process. Before each copy of its state the guest executes ``between`` instructions."""
    whole, increment = folder / "whole", folder / "increment"

    def run() -> None:
        guest.run(fuel=between)

    def save() -> str:
        with guest.save() as state:
            return write_snapshot(state, whole)

    yield Figure("save in memory", timed(guest.save, runs, run), "ms")
    yield Figure("save to a file", timed(save, runs, run), "ms", 150)
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
    yield Figure("fork, of a guest that runs", timed(lambda: fork(guest), runs, run), "ms", 10)
    yield Figure("fork, of a guest that has not run since the last", timed(lambda: fork(guest), runs), "ms", 10)
    yield from clones(guest)
    yield Figure("checkpoint", timed(guest.checkpoint, runs), "ms")
    for name, clear in (("warm", lambda: None), ("cold", ColdCaches())):
        title = f"rollback of {_DIRTY_PAGES} pages, {name} caches"
        yield rollbacks(title, guest, lambda: touch(guest, _DIRTY_PAGES), runs, clear, 100)
    yield rollbacks(f"rollback of {_ROUND_FUEL:,} instructions", guest, lambda: guest.run(fuel=_ROUND_FUEL), runs)


def first_forks(linux: Path | None, runs: int) -> list[float]:
    """Return the milliseconds of the first forks of machines that have booted."""
    found = []
    for _ in range(runs):
        with booted(linux) as guest:
            found += timed(partial(fork, guest), 1, skipped=0)
    return found


def fork(guest: Machine) -> Machine:
    return guest.fork(console=CaptureConsole())


class ColdCaches:
    """When it is called, the host's caches have other memory in them than what the guest used."""

    def __init__(self) -> None:
        self._memory = bytearray(_CACHES)

    def __call__(self) -> None:
        self._memory = bytearray(self._memory)


def rollbacks(
    name: str,
    guest: Machine,
    work: Callable[[], object],
    runs: int,
    before: Callable[[], object] = lambda: None,
    limit: float | None = None,
) -> Figure:
    """Return the microseconds that a rollback takes after ``work`` and ``before``. The first one is not counted."""
    found, pages = [], 0
    with guest.checkpoint() as checkpoint:
        for _ in range(10 * runs + 1):
            work()
            pages = len(checkpoint.dirty_pages())
            before()
            started = time.perf_counter()
            guest.rollback(checkpoint)
            found.append((time.perf_counter() - started) * 1e6)
    return Figure(f"{name} ({pages} dirty)", found[1:], "us", limit)


def touch(guest: Machine, count: int) -> None:
    """Write to so many pages, without a change."""
    for gpa in range(guest.ram.layout.main.base, guest.ram.layout.main.end, guest.ram.size // count):
        guest.write(gpa, guest.read(gpa, 1))


def clones(guest: Machine) -> Iterator[Figure]:
    """Yield the figures of forks that all live at once, after their first instructions."""
    before, started, made = private_dirty_kb(), time.perf_counter(), []
    for _ in range(_CLONES):
        made.append(fork(guest))
        made[-1].run(fuel=_CLONE_FUEL)
    taken = (time.perf_counter() - started) * 1e3
    own, workers = (private_dirty_kb() - before) / 1e3, len(children())
    for clone in made:
        clone.close()
    yield Figure(f"{_CLONES} clones: fork and {_CLONE_FUEL:,} instructions, of each", [taken / _CLONES], "ms")
    yield Figure("... private memory of each", [own / _CLONES], "MB", 6)
    yield Figure("... compile workers of all", [workers], "", 1)


def children() -> list[int]:
    """Return the processes that this one has started and that exist."""
    own, found = os.getpid(), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            found += [int(stat.parent.name)] * (parent == own)
    return found


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


def figures(linux: Path | None, runs: int) -> Iterator[Figure]:
    """Yield all figures."""
    with tempfile.TemporaryDirectory() as name:
        for figure in of_states(linux, Path(name), runs):
            yield figure if linux else figure._replace(limit=None)
    yield from bench_history.figures(None if linux is None else lambda: begun(linux), runs)


def of_states(linux: Path | None, folder: Path, runs: int) -> Iterator[Figure]:
    """Yield the figures of saved states, forks and rollbacks."""
    yield Figure("first fork after the boot", first_forks(linux, min(runs, _BOOTS)), "ms", 10)
    with booted(linux) as guest:
        print(f"{'Linux' if linux else 'minios'} at instruction {guest.icount:,}")
        yield from in_process(guest, folder, runs, _BETWEEN if linux else _BETWEEN_MINIOS)
    yield from start_up(folder, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linux", type=Path, help="a directory with a zImage and an initramfs")
    parser.add_argument("--runs", type=int, default=9, help="of each, of which the median counts")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    options = parser.parse_args()
    host = machine()
    print(", ".join(f"{name}: {value or 'none'}" for name, value in host.items()))
    found, linux, runs = [], options.linux, options.runs
    for figure in figures(linux, runs):
        found.append(figure)
        print(figure.row, flush=True)
    if options.json:
        rows = [{**figure._asdict(), "median": figure.median} for figure in found]
        options.json.write_text(json.dumps({"machine": host, "figures": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
