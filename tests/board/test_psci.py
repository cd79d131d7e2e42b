"""The firmware of the board virt: what it does beside answering, which tests/oracle/test_coprocessors.py compares."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.abi.exits import HypervisorCall, SecureMonitorCall
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from isa.arm.state import PSR_I
from tests.assembler import assemble
from tests.vm.programs import EXIT, MODES

BASE = 0x40010000
_SUSPEND, _CPU_OFF, _OFF, _RESET = 0x84000001, 0x84000002, 0x84000008, 0x84000009


def made(source: str, tier: TierName = "threaded", **options: object) -> Machine:
    machine = Machine(4 << 20, tier, console=CaptureConsole(), cpu="cortex-a15", board="virt", **options)  # type: ignore[arg-type]
    machine.load_bytes(assemble(source, BASE), BASE, BASE)
    return machine


def run(source: str, tier: TierName = "threaded") -> RunResult:
    with made(source, tier, jit="sync") as machine:
        return machine.run(fuel=100_000)


@pytest.mark.parametrize("tier", ["reference", "threaded", "auto"])
def test_the_machine_is_switched_off_and_reset(tier: TierName) -> None:
    for function, message in ((_OFF, "switched the machine off"), (_RESET, "reset the machine")):
        result = run(f"ldr r0, ={function:#x} ; .word 0xe1400070 ; 1: b 1b ; .ltorg", tier)
        assert (result.reason, result.exit_code, result.icount) == (StopReason.EXITED, 0, 2)
        assert message in result.message


def test_without_its_only_processor_the_machine_has_halted() -> None:
    with made(f"ldr r0, ={_CPU_OFF:#x} ; .word 0xe1400070 ; 1: b 1b ; .ltorg") as machine:
        for _ in range(2):
            result = machine.run()
            assert (result.reason, result.icount, result.pc) == (StopReason.HALTED, 1, BASE + 4)


#: Suspends until the timer interrupts, twice: once with interrupts masked, once with the handler that stops the timer.
_SUSPENDED = f"""
    b start ; b . ; b . ; b . ; b . ; b .
irq:
    ldr r1, =0x08010000 ; ldr r2, [r1, #0xc] ; mov r3, #0 ; mcr p15, #0, r3, c14, c3, #1 ; str r2, [r1, #0x10]
    add r10, r10, #1 ; subs pc, lr, #4
start:
    adr r0, start ; bic r0, r0, #0xff ; mcr p15, #0, r0, c12, c0, #0
    ldr r1, =0x08000000 ; mov r0, #1 ; str r0, [r1] ; ldr r0, =0x08000000 ; str r0, [r1, #0x100]
    ldr r1, =0x08010000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0xf0 ; str r0, [r1, #4]
    ldr r2, =50000 ; mcr p15, #0, r2, c14, c3, #0 ; mov r3, #1 ; mcr p15, #0, r3, c14, c3, #1
    mov r10, #0 ; mov r9, #0
    ldr r0, ={_SUSPEND:#x} ; mov r1, #0 ; .word 0xe1400070
    add r9, r9, r0 ; add r9, r9, #1 ; mrrc p15, #1, r4, r5, c14
    cpsie i ; nop ; cpsid i
    ldr r2, =50000 ; mcr p15, #0, r2, c14, c3, #0 ; mov r3, #1 ; mcr p15, #0, r3, c14, c3, #1
    cpsie i ; ldr r0, ={_SUSPEND:#x} ; mov r1, #0 ; .word 0xe1400070 ; mrrc p15, #1, r6, r7, c14
    mov r2, #0 ; {EXIT}
    .ltorg
"""


def test_suspension_waits_for_an_interrupt() -> None:
    ends = set()
    for tier, jit in MODES:
        with made(_SUSPENDED, tier, jit=jit) as machine:
            result = machine.run(fuel=100_000)
            assert result.exit_code == 0, result.message
            assert (machine.r[9], machine.r[10]) == (1, 2)
            assert 50_000 < machine.r[4] < 50_100 and 100_000 < machine.r[6] < 100_200
            ends.add((result.icount, state_hash(machine)))
    assert len(ends) == 1


def test_a_suspended_machine_is_saved_and_goes_on() -> None:
    with made(
        f"ldr r0, ={_SUSPEND:#x} ; mov r1, #0 ; .word 0xe1400070 ; add r5, r0, #7 ; mov r2, #0 ; {EXIT}"
    ) as machine:
        assert machine.run().reason is StopReason.HALTED
        with machine.save() as state, Machine.restore(state, console=CaptureConsole()) as other:
            for each in (machine, other):
                assert (each.run().reason, each.icount, each.pc) == (StopReason.HALTED, 2, BASE + 8)
                each.vcpu.set_line(PSR_I, True)
                assert (each.run().exit_code, each.r[5]) == (0, 7)
            assert state_hash(machine) == state_hash(other)


def test_smc_is_undefined_and_without_firmware_hvc_too() -> None:
    assert run(".word 0xe1600070").exit == SecureMonitorCall(Gva(BASE), 0)
    with Machine(4 << 20, "threaded", console=CaptureConsole(), cpu="cortex-a15", board="versatile") as machine:
        machine.load_bytes(assemble(".word 0xe1400070"), 0x8000)
        assert machine.run().exit == HypervisorCall(Gva(0x8000), 0)
