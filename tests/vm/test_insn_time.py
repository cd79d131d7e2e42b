"""The time that an instruction takes for the guest: chosen with the machine, and part of its state."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, TIERS

#: Polls a timer of the board for 100 microseconds.
_POLL = f"""
    ldr r6, =0x101e2000 ; mov r0, #100 ; str r0, [r6] ; mov r1, #0x83 ; str r1, [r6, #8]
1:  ldr r1, [r6, #0x10] ; cmp r1, #0 ; beq 1b
    mov r2, #0 ; {EXIT}
"""
#: Leaves SYS_TICKFREQ's answer in R4.
_FREQUENCY = f"mov r0, #0x31 ; mov r1, #0 ; svc 0x123456 ; mov r4, r0 ; mov r2, #0 ; {EXIT}"


def run(source: str, insn_ns: int, tier: TierName = "reference") -> Machine:
    machine = Machine(1 << 20, tier=tier, insn_ns=insn_ns, console=CaptureConsole())
    machine.load_bytes(assemble(source, BASE), BASE)
    assert machine.run().exit_code == 0
    return machine


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("insn_ns", [1, 8, 10, 40, 1000])
def test_a_timer_counts_the_guests_microseconds(tier: TierName, insn_ns: int) -> None:
    with run(_POLL, insn_ns, tier) as machine:
        assert machine.icount == pytest.approx(100_000 / insn_ns, abs=25)


def test_semihosting_tells_the_rate() -> None:
    assert [run(_FREQUENCY, insn_ns).r[4] for insn_ns in (1, 10, 250)] == [1_000_000_000, 100_000_000, 4_000_000]


def test_it_is_part_of_the_state() -> None:
    machines = [Machine(1 << 20, tier="reference", insn_ns=ns, console=CaptureConsole()) for ns in (1, 2, 2)]
    hashes = [state_hash(machine) for machine in machines]
    assert hashes[0] != hashes[1] == hashes[2]
