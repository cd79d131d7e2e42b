"""A board is made when it is needed. When that was makes no difference to the guest."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.guests import GUESTS

UART, TIMER = 0x101F1000, 0x101E2000
#: Counts for a while, and then sets a timer, sends a byte and reads back what is left of the time.
LATE = f"""
        mov r0, #1000 ; wait: subs r0, r0, #1 ; bne wait
        ldr r1, ={TIMER:#x} ; mov r2, #0x5000 ; str r2, [r1] ; mov r2, #0xe2 ; str r2, [r1, #8]
        ldr r3, ={UART:#x} ; mov r2, #65 ; str r2, [r3] ; ldr r4, [r1, #4]
        stop: b stop"""


def _ran(program: bytes, early: bool, fuel: int, base: int | None = 0x10000) -> tuple[str, bytes, int]:
    console = CaptureConsole()
    with Machine(console=console, tier="threaded") as machine:
        machine.load_bytes(program, base)
        if early:
            assert machine.board.bus.windows
        machine.run(fuel=fuel)
        return state_hash(machine), bytes(console.output), machine.r[4]


def test_a_board_that_is_made_late_is_the_same() -> None:
    program = assemble(LATE, 0x10000)
    assert _ran(program, early=True, fuel=2100) == _ran(program, early=False, fuel=2100)
    assert _ran(program, early=False, fuel=2100)[1] == b"A"


def test_a_guest_without_devices_has_the_state_of_a_board_as_after_a_reset() -> None:
    program = (GUESTS / "images/hello-armv7-a-O2.elf").read_bytes()
    early, late = (_ran(program, early, 100_000, base=None) for early in (True, False))
    assert early == late
    assert late[1] == b"Hello from ARM!\n"


@pytest.mark.parametrize("early", [False, True])
def test_a_reset_gives_a_board_as_at_power_on(early: bool) -> None:
    with Machine(console=CaptureConsole(), tier="threaded") as machine:
        machine.load_bytes(assemble(LATE, 0x10000), 0x10000)
        if early:
            assert machine.board.timeline.next_tick is None
        machine.run(fuel=2100)
        before = machine.board
        assert before.timeline.next_tick is not None
        machine.reset()
        assert machine.board is not before
        assert machine.board.timeline.next_tick is None
