"""Breakpoints and compiled code: regions are given up for a breakpoint, and come back without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.engine.region_counts import RegionCounts
from dbt.engine.region_tier import RegionTier
from dbt.gdb.target import BreakpointKind, StopSignal, WatchKind
from dbt.vm.controlled_machine import ControlledMachine
from dbt.vm.debugger import Debugger
from tests.assembler import assemble
from tests.codecache.samples import kept
from tests.gdb.counter import COUNTED, PLACES, RAM
from tests.vm.programs import BASE

#: As the counter of the other tests, but for ever: R4 = ++[R5].
ENDLESS = """
    ldr r5, =0x20000
    nop
    nop
loop:
    bl count
    add r6, r6, #1
    b loop
    nop
    nop
count:
    ldr r4, [r5]
    add r4, r4, #1
    str r4, [r5]
    bx lr
"""


def never() -> bool:
    return False


@pytest.fixture
def machine(only_handlers: Path) -> Iterator[Machine]:
    """A machine that compiles hot code at once, with a cache of its own that has no regions yet."""
    with Machine(RAM, jit="sync", console=CaptureConsole()) as made:
        made.load_bytes(assemble(ENDLESS), base=BASE)
        yield made


def tier_of(machine: Machine) -> RegionTier:
    assert isinstance(machine.tier, RegionTier)
    return machine.tier


def covered(machine: Machine, place: str) -> bool:
    """Return True if a region is installed that was made from the word."""
    return any(
        gpa <= PLACES[place] < gpa + len(data)
        for installed in tier_of(machine).cache.installed.values()
        for gpa, data in installed.region.runs
    )


def has_come_to(machine: ControlledMachine, icount: int) -> bool:
    return machine.icount >= icount


def run_until(debugger: Debugger, condition: Callable[[], bool]) -> None:
    """Run the guest by some 100,000 instructions until the condition holds."""
    machine = debugger.machine
    for _ in range(50):
        if condition():
            return
        end = machine.icount + 100_000
        assert debugger.resume(partial(has_come_to, machine, end)).signal is StopSignal.INTERRUPT
    raise AssertionError("it does not happen")


def counts_of(machine: Machine) -> RegionCounts:
    return tier_of(machine).regions.counts


def test_a_region_comes_back_from_disk_when_its_breakpoint_is_removed(machine: Machine) -> None:
    debugger = Debugger(machine)
    run_until(debugger, lambda: covered(machine, "store"))
    assert kept()
    compiled = counts_of(machine).compiled
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    assert debugger.resume(never).what is BreakpointKind.SOFTWARE
    assert not covered(machine, "store")
    debugger.remove_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    run_until(debugger, lambda: covered(machine, "store"))
    assert counts_of(machine).compiled == compiled
    assert counts_of(machine).loaded


def test_a_region_that_a_breakpoint_cuts_short_is_neither_kept_nor_left(machine: Machine) -> None:
    debugger = Debugger(machine)
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"], [lambda: False])
    run_until(debugger, lambda: covered(machine, "loop"))
    assert not covered(machine, "store")
    assert not kept()
    debugger.remove_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    run_until(debugger, lambda: covered(machine, "store"))
    assert kept()


def test_breakpoints_that_are_inserted_again_between_two_steps_cost_no_region(machine: Machine) -> None:
    """So gdb does at each stop."""
    debugger = Debugger(machine)
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"], [lambda: machine.r[4] % 50_000 == 0])
    run_until(debugger, lambda: covered(machine, "loop"))
    dropped = counts_of(machine).dropped
    for _ in range(5):
        assert debugger.resume(never).what is BreakpointKind.SOFTWARE
        debugger.remove_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
        debugger.step(Gva(0), Gva(0), never)
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"], [lambda: machine.r[4] % 50_000 == 0])
    assert counts_of(machine).dropped == dropped


def test_stores_beside_watched_bytes_leave_regions_but_nothing_else(machine: Machine) -> None:
    debugger = Debugger(machine)
    run_until(debugger, lambda: covered(machine, "store"))
    debugger.insert_watchpoint(WatchKind.WRITE, Gva(COUNTED + 8), 4)
    before = int.from_bytes(machine.read(Gpa(COUNTED), 4), "little")
    run_until(debugger, lambda: int.from_bytes(machine.read(Gpa(COUNTED), 4), "little") > before + 50_000)
    assert covered(machine, "store")
