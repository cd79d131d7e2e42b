"""How a domain spends its time (the runstate area): what it waits is blocked, in ticks of its own time."""

from __future__ import annotations

import struct

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import EXIT
from tests.xen.guests import RAM, domain_machine

CODE, AREA, FOUND = RAM + 0x20000, RAM + 0x50FE8, RAM + 0x60000
_NS = 10
_NAPS = 20
#: Waits 30 us of the generic timer, whose interrupt is masked, and computes, in turn. It copies its runstate each time.
_GUEST = """
    mov r12, #24 ; mov r0, #5 ; mov r1, #0 ; ldr r2, =area ; .word 0xe140ea71
    ldr r8, =0x3001000 ; mov r0, #1 ; str r0, [r8] ; mvn r0, #0 ; str r0, [r8, #0x100]
    ldr r9, =0x3002000 ; mov r0, #255 ; str r0, [r9, #4] ; mov r0, #1 ; str r0, [r9]
    ldr r10, =FOUND ; mov r7, #NAPS
nap: mov r0, #1 ; mcr p15, #0, r0, c14, c3, #1 ; ldr r0, =1875 ; mcr p15, #0, r0, c14, c3, #0
    WAIT
    ldr r11, =AREA ; ldm r11!, {r0-r5} ; stm r10!, {r0-r5} ; ldm r11!, {r0-r5} ; stm r10!, {r0-r5}
    WAIT
    mov r0, #0 ; mcr p15, #0, r0, c14, c3, #1 ; ldr r0, [r9, #12] ; str r0, [r9, #16]
    mov r1, #250 ; 1: subs r1, r1, #1 ; bne 1b ; subs r7, r7, #1 ; bne nap
    mov r2, #0 ; EXIT
    .ltorg ; .balign 8
area: .word AREA, 0
"""
_WAITS = {"wfi": "wfi", "block": "mov r12, #29 ; mov r0, #1 ; mov r1, #0 ; .word 0xe140ea71"}


def napping(tier: str, wait: str) -> Machine:
    machine = domain_machine(tier, semihosting=True)
    code = _GUEST.replace("WAIT", _WAITS[wait]).replace("EXIT", EXIT).replace("NAPS", str(_NAPS))
    machine.load_bytes(assemble(code.replace("FOUND", f"{FOUND:#x}").replace("AREA", f"{AREA:#x}"), CODE), CODE, CODE)
    return machine


def found(machine: Machine) -> list[tuple[int, ...]]:
    """Return state, since when, and the times running, runnable, blocked and offline, after each wait."""
    return list(struct.iter_unpack("<IxxxxQQQQQ", machine.memory.read_ram(Gpa(FOUND), 48 * _NAPS)))


@pytest.mark.parametrize("wait", list(_WAITS))
def test_what_a_domain_waits_is_blocked(wait: str) -> None:
    """The same in every tier. A wait that is over as soon as it begins changes nothing."""
    ends = set()
    for tier in ("reference", "threaded", "stitched", "auto"):
        with napping(tier, wait) as machine:
            assert machine.run(timeout=60).reason is StopReason.EXITED
            ends.add((machine.icount, state_hash(machine)))
            times = found(machine)
            skipped = machine.vcpu.skipped * _NS
    assert len(ends) == 1
    for number, (state, since, running, runnable, blocked, offline) in enumerate(times, 1):
        assert (state, running + blocked, runnable, offline) == (0, since, 0, 0)
        assert abs(blocked - number * 30_000) <= number * 200, "but for what it takes to begin to wait"
    assert times[-1][4] == skipped


@pytest.mark.parametrize("wait", list(_WAITS))
def test_a_domain_that_waits_goes_on_from_its_state(wait: str) -> None:
    ends = set()
    with napping("threaded", wait) as machine:
        for fuel in (1000, 37, 5, 400):
            machine.run(fuel=fuel)
            with machine.save() as state, machine.fork() as child, Machine.restore(state, tier="reference") as again:
                for one in (child, again):
                    assert one.run(timeout=60).reason is StopReason.EXITED
                    ends.add((one.icount, state_hash(one)))
        assert machine.run(timeout=60).reason is StopReason.EXITED
        ends.add((machine.icount, state_hash(machine)))
    assert len(ends) == 1
