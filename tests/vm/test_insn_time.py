"""The time that an instruction takes for the guest: chosen with the machine, and part of its state."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.board.clock import insn_ns_of
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
#: Stores SYS_ELAPSED's answer after a thousand instructions.
_ELAPSED = f"""
    mov r1, #500
1:  subs r1, r1, #1 ; bne 1b
    mov r0, #0x30 ; mov r1, #0x20000 ; svc 0x123456 ; mov r2, #0 ; {EXIT}
"""
#: Leaves SYS_TICKFREQ's answer in R4.
_FREQUENCY = f"mov r0, #0x31 ; mov r1, #0 ; svc 0x123456 ; mov r4, r0 ; mov r2, #0 ; {EXIT}"


def run(source: str, insn_ns: float, tier: TierName = "reference") -> Machine:
    machine = Machine(1 << 20, tier=tier, insn_ns=insn_ns, console=CaptureConsole())
    machine.load_bytes(assemble(source, BASE), BASE)
    assert machine.run().exit_code == 0
    return machine


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("insn_ns", [0.1, 0.2, 0.5, 1, 8, 10, 40, 1000])
def test_a_timer_counts_the_guests_microseconds(tier: TierName, insn_ns: float) -> None:
    with run(_POLL, insn_ns, tier) as machine:
        assert machine.icount == pytest.approx(100_000 / insn_ns, abs=25)


def test_semihosting_tells_the_rate() -> None:
    assert [run(_FREQUENCY, insn_ns).r[4] for insn_ns in (1, 10, 250)] == [1_000_000_000, 100_000_000, 4_000_000]
    assert run(_FREQUENCY, 0.1).r[4] == 1_000_000_000  # which a word can hold


def test_semihosting_tells_the_time_in_ticks_of_that_rate() -> None:
    for insn_ns, ticks in ((0.1, 100), (0.5, 500), (10, 1000)):
        with run(_ELAPSED, insn_ns) as machine:
            assert int.from_bytes(machine.read(0x20000, 8), "little") == pytest.approx(ticks, abs=10)


@pytest.mark.parametrize("insn_ns", [0.1, 0.5, 10])
def test_it_is_saved_and_restored(insn_ns: float) -> None:
    with (
        run(f"mov r2, #0 ; {EXIT}", insn_ns) as machine,
        machine.save() as state,
        Machine.restore(state, console=CaptureConsole()) as other,
    ):
        assert other.timeline.insn_ns == insn_ns and state_hash(other) == state_hash(machine)


@pytest.mark.parametrize("plain", ["10", "0.3", 0, 3, True, [1], None])
def test_saved_values_that_are_no_times_are_refused(plain: object) -> None:
    with pytest.raises(ValueError, match="none of the times"):
        insn_ns_of(plain)


def test_it_is_part_of_the_state() -> None:
    machines = [Machine(1 << 20, tier="reference", insn_ns=ns, console=CaptureConsole()) for ns in (1, 2, 2)]
    hashes = [state_hash(machine) for machine in machines]
    assert hashes[0] != hashes[1] == hashes[2]
