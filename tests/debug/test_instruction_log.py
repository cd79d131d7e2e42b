"""The trace has a line for each instruction, and tracing changes nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.debug.instruction_log import HEADER, InstructionTrace
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE, TIERS, make_elf


def trace_of(machine: Machine, fuel: int | None = None) -> list[str]:
    file = io.StringIO()
    machine.run(fuel, trace=InstructionTrace(file))
    lines = file.getvalue().splitlines(keepends=True)
    assert lines[0] == HEADER
    return [line.rstrip("\n") for line in lines[1:]]


@pytest.mark.parametrize("tier", TIERS)
def test_each_instruction_has_a_line(tier: TierName) -> None:
    machine = Machine(1 << 20, tier, console=CaptureConsole())
    machine.load_bytes(assemble("mov r0, #0x13; adds r1, r1, #0; svc 0x123456; b 0x8000; nop"), base=BASE)
    assert trace_of(machine, fuel=5) == [
        "     0 00008000 e3a00013  mov r0, #0x13                   r0=00000013",
        "     1 00008004 e2911000  adds r1, r1, #0                 cpsr=400001d3",
        "     2 00008008 ef123456  svc #0x123456                   r0=00000000",
        "     3 0000800c eafffffb  b #0x8000                       pc=00008000",
        "     4 00008000 e3a00013  mov r0, #0x13                   r0=00000013",
    ]


@pytest.mark.parametrize("tier", TIERS)
def test_an_exception_has_a_line_and_no_number(tier: TierName) -> None:
    machine = Machine(1 << 20, tier, console=CaptureConsole())
    table = "nop; nop; nop; nop; mov r6, #1; nop; nop; nop; mvn r0, #3; ldr r1, [r0]"
    machine.load_bytes(make_elf(assemble(table, base=0), base=0, entry=0x20))
    lines = trace_of(machine, fuel=2)
    assert [line.split()[:2] for line in lines] == [["0", "00000020"], ["1", "00000024"], ["1", "00000010"]]
    assert "-> data abort" in lines[1] and "pc=00000010" in lines[1] and "lr=0000002c" in lines[1]
    assert "r6=00000001" in lines[2]


@pytest.mark.parametrize("tier", TIERS)
def test_the_last_line_is_the_fault(tier: TierName) -> None:
    machine = Machine(1 << 20, tier, console=CaptureConsole())
    machine.load_bytes(assemble("ldr pc, =0x40000000"), base=BASE)
    lines = trace_of(machine)
    assert lines[-1].split() == ["1", "40000000", "--------", "(not", "RAM)", "->", "prefetch", "abort"]


def test_tracing_changes_nothing() -> None:
    text = "mov r4, #0; loop: add r4, r4, #1; cmp r4, #100; bne loop; mov r0, #0x10; svc 0x123456; b ."
    machines = [Machine(1 << 20, "reference", console=CaptureConsole()) for _ in range(2)]
    for machine in machines:
        machine.load_bytes(assemble(text), base=BASE)
    machines[0].run(fuel=350)
    assert len(trace_of(machines[1], fuel=350)) == 350
    assert state_hash(machines[0]) == state_hash(machines[1])


def test_the_instruction_is_read_from_where_its_address_is_mapped(only_handlers: Path) -> None:
    machine = Machine(1 << 20, cpu="arm926", console=CaptureConsole())
    table = {0: 0x00000C12, 1: 0x00000C12, 2: 0x00000C12}  # three times the first megabyte
    for megabyte, descriptor in table.items():
        machine.write(0x4000 + 4 * megabyte, descriptor.to_bytes(4, "little"))
    boot = "mov r0, #0x4000; mov r1, #1; mcr p15, #0, r0, c2, c0, #0; mcr p15, #0, r1, c3, c0, #0"
    machine.write(0x8000, assemble(f"{boot}; mcr p15, #0, r1, c1, c0, #0; add pc, pc, #0x100000; nop", 0x8000))
    machine.write(0x801C, assemble("mvn r7, #0", 0x10801C))
    machine.pc = 0x8000
    assert trace_of(machine, fuel=7)[-1] == "     6 0010801c e3e07000  mvn r7, #0                      r7=ffffffff"
