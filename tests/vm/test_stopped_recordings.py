"""A recording of a run that is stopped anywhere has an end that its replay finds.

Several points have one instruction count: before a WFI, while the guest waits, and after an instruction was aborted.
"""

from __future__ import annotations

import random

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.vm.options import TIERS, TierName
from dbt.vm.recording import End, Recording, identify
from dbt.vm.replay import Replay
from dbt.vm.result import RunResult
from tests.assembler import assemble

#: Waits for a timer of 20 us, with aborts and undefined instructions before. R6 counts them and R7 interrupts.
_GUEST = assemble(
    """
        b start ; b fault ; b start ; b start ; b fault ; b start ; b irq
    start:
        msr cpsr_c, #0xd1 ; msr cpsr_c, #0xd2 ; mov sp, #0x8000
        ldr r4, =0x10140000 ; mov r0, #0x10 ; str r0, [r4, #0x10]
        ldr r5, =0x101e2000 ; mov r0, #20 ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
        ldr r8, =0x70000000
        msr cpsr_c, #0x13
    again:
        ldr r0, [r8] ; nop ; .word 0xe7f000f0 ; ldr r0, [r8] ; nop
        mcr p15, #0, r0, c7, c0, #4
        b again
    fault: add r6, r6, #1 ; movs pc, lr  @ which leaves out the instruction after one that has read
    irq: str r5, [r5, #0xc] ; add r7, r7, #1 ; subs pc, lr, #4
    .ltorg
    """
)
_STOPS = 120


class _StopsSoon:
    """Stops a run after so many slices."""

    goes_on, hears_exceptions = True, False

    def __init__(self, slices: int) -> None:
        self._left = slices

    def wants_stop(self) -> bool:
        self._left -= 1
        return self._left < 0

    def stops_in_handler(self, kind: object) -> bool:
        return False


def _machine(tier: TierName) -> Machine:
    machine = Machine(1 << 20, tier, jit="off", console=CaptureConsole())
    machine.load_bytes(_GUEST, 0)
    return machine


def _stopped(machine: Machine, chance: random.Random, shares: bool) -> RunResult:
    """Execute a few slices, as one of many machines or alone."""
    watcher = _StopsSoon(chance.randrange(1, 9))
    if not shares:
        return machine.run(watcher=watcher)
    result = machine.run_metered(10**6, watcher).result
    if result.reason is StopReason.WAITING:
        ahead = (machine.timeline.next_tick or machine.timeline.now) - machine.timeline.now
        machine.wait_until(machine.timeline.now + chance.choice((1, ahead, 2 * ahead)), until_woken=True)
    return result


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "metered"])
@pytest.mark.parametrize("tier", TIERS)
def test_its_replay_ends_where_it_was_stopped(tier: TierName, shares: bool) -> None:
    chance, points = random.Random(7), set[tuple[int, str]]()
    with _machine(tier) as machine, _machine(tier) as repeated:
        while len(points) < _STOPS:
            _stopped(machine, chance, shares)
            ended = RunResult(StopReason.INTERRUPTED, None, machine.icount, machine.cpu.pc, "")
            end = End.of(machine, ended, StopReason.INTERRUPTED.value)
            points.add((end.icount, end.state))
            here = identify(repeated, "")
            replay = Replay(Recording("a run", here, (), end), here)
            replay.compare(repeated, repeated.run(replay.fuel(repeated.icount, None)), pytest.fail)
        assert machine.r[6] > 20 and machine.r[7] > 4
