"""Breakpoints, watchpoints and steps stop the guest exactly, in every tier, and the guest does not notice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gva
from dbt.engine.tier import JitMode
from dbt.gdb.target import BreakpointKind, Stop, StopSignal, WatchKind
from dbt.vm.debugger import Debugger
from dbt.vm.machine import TierName
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.state import Mode
from tests.assembler import assemble
from tests.gdb.counter import COUNTED, COUNTER, PLACES, RAM, TIMED
from tests.vm.programs import BASE, EXIT, MODES


def never() -> bool:
    return False


@pytest.fixture(params=MODES, ids="-".join)
def mode(request: pytest.FixtureRequest) -> tuple[TierName, JitMode]:
    found: tuple[TierName, JitMode] = request.param
    return found


def machine_in(mode: tuple[TierName, JitMode], source: str = COUNTER) -> Machine:
    machine = Machine(RAM, mode[0], jit=mode[1], console=CaptureConsole())
    machine.load_bytes(assemble(source + EXIT), base=BASE)
    return machine


@pytest.fixture
def machine(mode: tuple[TierName, JitMode]) -> Iterator[Machine]:
    with machine_in(mode) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed() -> str:
    """The hash of the state at the end of a run without a debugger."""
    with machine_in(("threaded", "off")) as machine:
        assert machine.run().exit_code == 7
        return state_hash(machine)


def run_to_end(debugger: Debugger) -> int | None:
    while (stop := debugger.resume(never)).exit_code is None:
        pass
    return stop.exit_code


def test_a_breakpoint_stops_each_time_control_comes_there(machine: Machine, undisturbed: str) -> None:
    debugger = Debugger(machine)
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    for number in range(1, 20):
        stop = debugger.resume(never)
        assert (stop.signal, stop.what) == (StopSignal.TRAP, BreakpointKind.SOFTWARE)
        assert machine.pc == PLACES["store"]
        assert machine.r[4] == number
        # The address is in front of the instruction: nothing has been stored.
        assert machine.read(COUNTED, 4) == (number - 1).to_bytes(4, "little")
        assert machine.icount == 3 + 3 + (number - 1) * 9
        assert debugger.step(Gva(0), Gva(0), never).signal is StopSignal.TRAP
        assert machine.pc == PLACES["store"] + 4
    debugger.remove_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    assert run_to_end(debugger) == 7
    assert state_hash(machine) == undisturbed


def test_a_breakpoint_in_hot_code_takes_effect_at_once(machine: Machine, undisturbed: str) -> None:
    assert machine.run(fuel=20_000).reason is StopReason.FUEL
    debugger = Debugger(machine)
    at = machine.icount
    debugger.insert_breakpoint(BreakpointKind.HARDWARE, PLACES["count"])
    stop = debugger.resume(never)
    assert stop.what is BreakpointKind.HARDWARE
    assert machine.pc == PLACES["count"]
    assert machine.icount <= at + 9
    debugger.detach()
    assert run_to_end(debugger) == 7
    assert state_hash(machine) == undisturbed


@pytest.mark.parametrize("kind", WatchKind)
def test_a_watchpoint_stops_in_front_of_the_access(machine: Machine, kind: WatchKind, undisturbed: str) -> None:
    debugger = Debugger(machine)
    debugger.insert_watchpoint(kind, Gva(COUNTED + 1), 2)
    at = {WatchKind.WRITE: ["store"], WatchKind.READ: ["load"], WatchKind.ACCESS: ["load", "store"]}[kind]
    for number in range(12):
        stop = debugger.resume(never)
        assert (stop.signal, stop.what, stop.address) == (StopSignal.TRAP, kind, COUNTED + 1)
        assert machine.pc == PLACES[at[number % len(at)]]
        debugger.remove_watchpoint(kind, Gva(COUNTED + 1), 2)
        assert debugger.step(Gva(0), Gva(0), never).what is None
        debugger.insert_watchpoint(kind, Gva(COUNTED + 1), 2)
    debugger.detach()
    assert run_to_end(debugger) == 7
    assert state_hash(machine) == undisturbed


def test_a_step_is_stopped_by_a_new_watchpoint(machine: Machine) -> None:
    debugger = Debugger(machine)
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"])
    debugger.resume(never)
    debugger.write_register(1, 4, 77)
    debugger.insert_watchpoint(WatchKind.WRITE, COUNTED, 4)
    stop = debugger.step(Gva(0), Gva(0), never)
    assert (stop.what, stop.address, machine.pc) == (WatchKind.WRITE, COUNTED, PLACES["store"])
    debugger.step(Gva(0), Gva(0), never)
    assert machine.pc == PLACES["store"] + 4
    assert machine.read(COUNTED, 4)[0] == 77


def test_a_watchpoint_in_hot_code_takes_effect_at_once(machine: Machine, undisturbed: str) -> None:
    assert machine.run(fuel=20_000).reason is StopReason.FUEL
    debugger = Debugger(machine)
    for kind, place in ((WatchKind.READ, "load"), (WatchKind.WRITE, "store")):
        at = machine.icount
        debugger.insert_watchpoint(kind, COUNTED, 4)
        assert debugger.resume(never).what is kind
        assert machine.pc == PLACES[place]
        assert machine.icount <= at + 9
        debugger.remove_watchpoint(kind, COUNTED, 4)
    debugger.detach()
    assert run_to_end(debugger) == 7
    assert state_hash(machine) == undisturbed


def test_what_lies_beside_the_watched_bytes_does_not_stop(machine: Machine, undisturbed: str) -> None:
    debugger = Debugger(machine)
    for gva, size in ((COUNTED - 4, 4), (COUNTED + 4, 60), (COUNTED + 68, 4)):
        debugger.insert_watchpoint(WatchKind.ACCESS, Gva(gva), size)
    assert debugger.resume(never).exit_code == 7
    assert state_hash(machine) == undisturbed


def test_a_condition_decides_without_leaving_the_guest(machine: Machine, undisturbed: str) -> None:
    debugger = Debugger(machine)
    debugger.insert_breakpoint(BreakpointKind.SOFTWARE, PLACES["store"], [lambda: machine.r[4] in (700, 2100)])
    for number in (700, 2100):
        assert debugger.resume(never).what is BreakpointKind.SOFTWARE
        assert machine.r[4] == number
        debugger.step(Gva(0), Gva(0), never)
    assert debugger.resume(never).exit_code == 7
    assert state_hash(machine) == undisturbed


def test_slow_conditions_do_not_keep_anybody_from_stopping_the_guest(mode: tuple[TierName, JitMode]) -> None:
    """In a slice of this loop there may be a thousand of them."""
    hits, interrupted = 0, False

    def holds() -> bool:
        nonlocal hits
        hits += 1
        time.sleep(0.001)
        if hits == 2 and interrupted:
            running.interrupt()
        return False

    with machine_in(mode, "loop: add r0, r0, #1 ; b loop") as running:
        running.run(fuel=2000 if mode[0] == "reference" else 300_000)  # from here on slices are long
        debugger = Debugger(running)
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, Gva(BASE), [holds])
        assert debugger.resume(lambda: hits > 1) == Stop(StopSignal.INTERRUPT)
        assert hits < 100
        hits, interrupted = 0, True
        assert debugger.resume(never) == Stop(StopSignal.INTERRUPT)
        assert hits < 100


def test_a_breakpoint_survives_that_its_word_is_written_over(mode: tuple[TierName, JitMode]) -> None:
    source = """
        mov r6, #0
        ldr r1, =0xe2855001          @ add r5, r5, #1
        adr r2, patch
    again:
        str r1, [r2]
    patch:
        add r5, r5, #1
        add r6, r6, #1
        cmp r6, #40
        bne again
        mov r2, #3
    """
    with machine_in(mode, source) as machine:
        debugger = Debugger(machine)
        debugger.insert_breakpoint(BreakpointKind.SOFTWARE, Gva(BASE + 16))
        for number in range(40):
            assert debugger.resume(never).what is BreakpointKind.SOFTWARE
            assert machine.r[6] == number
            assert machine.read(BASE + 16, 4) == (0xE2855001).to_bytes(4, "little")  # the guest reads its own code
            debugger.step(Gva(0), Gva(0), never)
        assert debugger.resume(never).exit_code == 3
        assert machine.r[5] == 40


def test_loads_of_literals_are_watched_too(mode: tuple[TierName, JitMode]) -> None:
    source = """
        ldr r6, =500
    loop:
        ldr r3, word
        subs r6, r6, #1
        bne loop
        mov r2, #1
        b end
    word: .word 0x12345678
    end:
    """
    with machine_in(mode, source) as machine:
        machine.run(fuel=300)
        debugger = Debugger(machine)
        debugger.insert_watchpoint(WatchKind.READ, Gva(BASE + 24), 4)
        for _ in range(3):
            assert debugger.resume(never).what is WatchKind.READ
            assert machine.pc == BASE + 4
            debugger.remove_watchpoint(WatchKind.READ, Gva(BASE + 24), 4)
            debugger.step(Gva(0), Gva(0), never)
            debugger.insert_watchpoint(WatchKind.READ, Gva(BASE + 24), 4)


def test_each_access_of_an_instruction_is_looked_at(mode: tuple[TierName, JitMode]) -> None:
    source = """
        ldr r6, =400
        ldr r1, =0x20000
    loop:
        stmia r1, {r3-r10}
        ldmia r1, {r3-r5}
        ldrd r8, r9, [r1, #8]
        strb r3, [r1, #31]
        swp r4, r3, [r1]
        subs r6, r6, #1
        bne loop
        mov r2, #1
    """
    with machine_in(mode, source) as machine:
        machine.run(fuel=400)
        debugger = Debugger(machine)

        def hits(kind: WatchKind, gva: int, count: int) -> list[int]:
            debugger.insert_watchpoint(kind, Gva(gva), 1)
            found = []
            for _ in range(count):
                assert debugger.resume(never).what is kind
                found.append(machine.pc - BASE - 8 >> 2)
                debugger.remove_watchpoint(kind, Gva(gva), 1)
                debugger.step(Gva(0), Gva(0), never)
                debugger.insert_watchpoint(kind, Gva(gva), 1)
            debugger.remove_watchpoint(kind, Gva(gva), 1)
            return sorted(found)

        assert hits(WatchKind.WRITE, 0x2001F, 2) == [0, 3]
        assert hits(WatchKind.READ, 0x20009, 2) == [1, 2]
        assert hits(WatchKind.ACCESS, 0x20000, 4) == [0, 1, 4, 4] or hits(WatchKind.ACCESS, 0x20000, 3) == [0, 1, 4]


def test_the_guest_does_not_see_that_it_is_stepped(mode: tuple[TierName, JitMode]) -> None:
    """A timer interrupts the guest, which counts; all of this is the same when each instruction is a step."""
    hashes = []
    for stepped in (False, True):
        with machine_in(mode, TIMED) as machine:
            debugger = Debugger(machine)
            while stepped and machine.icount < 1500:
                assert debugger.step(Gva(0), Gva(0), never).signal is StopSignal.TRAP
            debugger.insert_breakpoint(BreakpointKind.SOFTWARE, Gva(0x18))  # of each interrupt
            debugger.insert_watchpoint(WatchKind.WRITE, COUNTED, 4)
            if not stepped:
                debugger.detach()
            assert run_to_end(debugger) == 9
            hashes.append(state_hash(machine))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("into", [False, True])
def test_steps_go_over_interrupts_unless_told_otherwise(mode: tuple[TierName, JitMode], into: bool) -> None:
    with machine_in(mode, TIMED) as machine:
        debugger = Debugger(machine)
        debugger.steps_into_interrupts = into
        modes = set()
        while machine.read(COUNTED, 4)[0] < 3 and machine.icount < 3000:
            debugger.step(Gva(0), Gva(0), never)
            if machine.r[7]:  # before that, the guest sets the stack of the mode for interrupts
                modes.add(machine.cpsr & 0x1F)
        assert machine.read(COUNTED, 4)[0] == 3
        assert modes == ({Mode.IRQ, Mode.SUPERVISOR} if into else {Mode.SUPERVISOR})
        assert debugger.resume(never).exit_code == 9
