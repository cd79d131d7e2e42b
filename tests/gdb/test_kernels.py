"""Debugging an operating system: page tables that change, processes, interrupts, input."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gva
from dbt.engine.tier import JitMode
from dbt.gdb.target import BreakpointKind, WatchKind
from dbt.vm.debugger import Debugger
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from isa.arm.state import PSR_MODE, Mode
from isa.arm.vectors import ExceptionKind
from tests.guests import GUESTS

MINIOS = GUESTS / "images" / "minios-armv5te-O2.elf"
NATIVE: list[tuple[TierName, JitMode]] = [("threaded", "off"), ("stitched", "off"), ("auto", "sync")]


def never() -> bool:
    return False


def booted(tier: TierName = "threaded", jit: JitMode = "off") -> Machine:
    machine = Machine(16 << 20, tier, jit=jit, console=CaptureConsole())
    machine.load_kernel(MINIOS)
    return machine


@pytest.fixture(scope="module")
def undisturbed() -> tuple[int, str, list[Gva]]:
    """The icount and the hash at the end of a run without a debugger, and addresses at which it was."""
    chance, places = random.Random(2), []
    with booted() as machine:
        while (result := machine.run(fuel=chance.randrange(1, 60_000))).exit_code is None:
            places.append(Gva(machine.pc))
        return result.icount, state_hash(machine), places


def address_of(machine: Machine, name: str) -> Gva:
    return next(symbol.address for symbol in machine.symbols.symbols if symbol.name == name)


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_the_whole_system_does_not_notice_the_debugger(
    tier: TierName, jit: JitMode, undisturbed: tuple[int, str, list[Gva]]
) -> None:
    icount, wanted, places = undisturbed
    with booted(tier, jit) as machine:
        debugger = Debugger(machine)
        hits: Counter[Gva] = Counter()

        def stops(place: Gva) -> bool:
            hits[place] += 1
            return hits[place] in (1, 2, 200)

        for place in sorted(set(places))[::3]:
            debugger.insert_breakpoint(BreakpointKind.SOFTWARE, place, [partial(stops, place)])
        debugger.insert_watchpoint(WatchKind.WRITE, address_of(machine, "last_pid"), 4)
        debugger.insert_watchpoint(WatchKind.ACCESS, address_of(machine, "current"), 2)
        stopped = 0
        while (stop := debugger.resume(never)).exit_code is None:
            stopped += 1
            if stopped == 300:
                debugger.remove_watchpoint(WatchKind.ACCESS, address_of(machine, "current"), 2)
            if stopped % 10 == 0:
                for _ in range(5):
                    debugger.step(Gva(0), Gva(0), never)
        assert stop.exit_code == 0
        assert stopped > 300
        assert (machine.icount, state_hash(machine)) == (icount, wanted)


def test_a_breakpoint_waits_for_its_page_to_be_mapped() -> None:
    with booted() as machine:
        debugger = Debugger(machine)
        main = address_of(machine, "kernel_main")
        debugger.insert_breakpoint(BreakpointKind.HARDWARE, main)
        assert debugger.translate(main) is None
        assert debugger.resume(never).what is BreakpointKind.HARDWARE
        assert machine.pc == main
        assert machine.cpu["sctlr"] & 1


def user_svc(debugger: Debugger) -> Gva:
    """Run the guest until a process makes a system call. Return the address of the SVC."""
    machine = debugger.machine
    debugger.caught.add(ExceptionKind.SUPERVISOR_CALL)
    for _ in range(50):
        debugger.resume(never)
        if machine.cpu.spsr & PSR_MODE == Mode.USER:
            debugger.caught.clear()
            return Gva(machine.r[14] - 4)
    raise AssertionError("no process makes a system call")


def test_a_breakpoint_stops_each_process_or_one_address_space_only() -> None:
    with booted("stitched") as machine:
        debugger = Debugger(machine)
        place = user_svc(debugger)
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, place)
        seen: Counter[tuple[int, int]] = Counter()
        for _ in range(60):
            if debugger.resume(never).what is not BreakpointKind.SOFTWARE:
                break
            assert (machine.pc, machine.cpu.mode) == (place, Mode.USER)
            seen[machine.cpu["ttbr0"], debugger.translate(place) or 0] += 1
        assert len({ttbr0 for ttbr0, _ in seen}) > 2
        (wanted, _), _ = seen.most_common()[0]
    with booted("stitched") as machine:
        debugger = Debugger(machine)
        assert user_svc(debugger) == place
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, place)
        assert f"ttbr0 is {wanted:#x}" in debugger.monitor(["limit", hex(place), "ttbr0", hex(wanted)], never)
        for _ in range(10):
            if debugger.resume(never).what is not BreakpointKind.SOFTWARE:
                break
            assert machine.cpu["ttbr0"] == wanted


def test_a_step_goes_from_the_process_into_the_kernel() -> None:
    with booted() as machine:
        debugger = Debugger(machine)
        place = user_svc(debugger)
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, place)
        debugger.resume(never)
        registers, icount = list(machine.r), machine.icount
        debugger.step(Gva(0), Gva(0), never)
        assert machine.cpu.mode == Mode.SUPERVISOR
        assert machine.pc & 0xFFF == 8
        assert machine.r[14] == place + 4
        assert list(machine.r)[:13] == registers[:13]
        assert machine.icount == icount + 1
        assert "svc" in machine.describe_pc(place)


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_code_that_is_mapped_elsewhere_by_now_is_not_slow(tier: TierName, jit: JitMode) -> None:
    """The breakpoint is at the physical address of a busy function, which runs at a virtual one."""
    emulated = []
    for name in ("trap", None):
        with booted(tier, jit) as machine:
            debugger = Debugger(machine)
            if name is not None:
                place = Gva(address_of(machine, name) & 0xFFFFFFF)
                debugger.insert_breakpoint(BreakpointKind.SOFTWARE, place)
            assert debugger.resume(never).exit_code == 0
            emulated.append(machine.retired["reference"])
    assert emulated[1] < emulated[0] <= emulated[1] + 8


def test_the_pages_of_the_guest_are_listed() -> None:
    with booted() as machine:
        debugger = Debugger(machine)
        main = address_of(machine, "kernel_main")
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, main)
        debugger.resume(never)
        assert debugger.monitor(["pages", hex(main)], never) == f"{main:#010x} is at {main & 0xFFFFFFF:#010x}"
        assert f"{main & -4096:08x}-" in debugger.monitor(["pages"], never)
        assert "MMU on" in debugger.monitor(["info"], never)
        assert debugger.monitor(["callouts"], never) != "no callouts"


def test_a_reset_says_what_it_has_loaded() -> None:
    with booted() as machine:
        machine.run(fuel=1000)
        assert "the guest is loaded again" in Debugger(machine).monitor(["system_reset"], never)
        assert (machine.icount, machine.pc) == (0, 0x10000)
        state = machine.save()
    with Machine.restore(state, tier="threaded", console=CaptureConsole()) as restored:
        assert "RAM keeps what it holds" in Debugger(restored).monitor(["system_reset"], never)
