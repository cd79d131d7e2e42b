"""Machines for tests of snapshots: a small operating system with page tables, timers and processes."""

from __future__ import annotations

from pathlib import Path

from dbt import CaptureConsole, Machine
from dbt.snapshot.snapshots import write_snapshot
from dbt.vm.machine import TierName

ROOT = Path(__file__).resolve().parents[2]
MINIOS = ROOT / "guests/images/minios-armv5te-O2.elf"
SUDOKU = ROOT / "guests/images/sudoku-armv7-a-O2.elf"
MEMORY = 16 << 20
#: Icounts at which minios has page tables, timers that run, and processes. It ends at 1,552,998.
FIRST, SECOND = 700_000, 800_000


def minios(icount: int = 0, tier: TierName = "threaded", input_: bytes = b"") -> Machine:
    """Return a machine with minios that has executed so many instructions, with this input on its console."""
    machine = Machine(memory=MEMORY, tier=tier, console=CaptureConsole(input_))
    machine.load(MINIOS)
    machine.run(fuel=icount)
    return machine


def save_pair(folder: Path, first: int = FIRST, second: int = SECOND) -> tuple[Path, Path]:
    """Save minios at two icounts, as a whole and as an increment to that."""
    base, child = folder / "base", folder / "child"
    with minios(first) as machine:
        with machine.save() as state:
            write_snapshot(state, base, durable=False)
        machine.run(fuel=second - first)
        with machine.save() as state:
            write_snapshot(state, child, parent=base, durable=False)
    return base, child
