"""Guests that run wild: fuel, a time limit or another thread stops each of them, in every tier, with a report."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.options import TIERS, TierName
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE

RAM = 1 << 20
TABLE = 0x4000
#: An exception takes the reference tier milliseconds.
FUEL = 400
_MMU_ON = f"""
    mov r0, #0x{TABLE:x} ; mcr p15, 0, r0, c2, c0, 0 ; mvn r0, #0 ; mcr p15, 0, r0, c3, c0, 0
    mrc p15, 0, r0, c1, c0, 0 ; orr r0, r0, #1 ; mcr p15, 0, r0, c1, c0, 0
"""
#: Timer 0 interrupts every microsecond, and nobody tells it that it has.
_STORM = """
    ldr r4, =0x101e2000 ; mov r0, #1 ; str r0, [r4] ; mov r0, #0xe2 ; str r0, [r4, #8]
    ldr r5, =0x10140000 ; mov r0, #0x10 ; str r0, [r5, #0x10]
    mrs r0, cpsr ; bic r0, r0, #0x80 ; msr cpsr_c, r0
    loop: add r1, r1, #1 ; b loop
"""


@dataclass(frozen=True)
class Wild:
    """``vectors`` are instructions by address, ``words`` the rest. ``end``: what stops the guest.

    ``storm``: its exceptions are endless, and after many of them it is told so (test_storms.py), unless something else
    stops it before.
    """

    code: str
    vectors: dict[int, str] = field(default_factory=dict)
    words: dict[int, int] = field(default_factory=dict)
    end: StopReason = StopReason.FUEL
    storm: bool = False


def _section(pa: int) -> int:
    return pa | 0xC02


WILD = {
    "branch to itself": Wild("b ."),
    "undefined instructions for ever": Wild("udf #0", {4: "udf #0"}, end=StopReason.FAULT),
    "a handler that jumps to its cause": Wild("udf #0", {4: "nop", 8: "udf #0"}, storm=True),
    "supervisor calls for ever": Wild("svc #1", {8: "svc #1"}),
    "data aborts for ever": Wild("mvn r0, #3 ; ldr r1, [r0]", {0x10: "subs pc, lr, #8"}, storm=True),
    "abort in the handler of aborts": Wild("mvn r0, #3 ; ldr r1, [r0]", {0x10: "nop ; ldr r1, [r0]"}, storm=True),
    "prefetch aborts for ever": Wild("mvn r0, #3 ; mov pc, r0", {0xC: "subs pc, lr, #4"}, storm=True),
    "undefined instructions that are counted": Wild("udf #0", {4: "add r4, r4, #1 ; subs pc, lr, #4"}),
    "data aborts that are counted": Wild("mvn r0, #3 ; ldr r1, [r0]", {0x10: "add r4, r4, #1 ; subs pc, lr, #8"}),
    "prefetch aborts that are counted": Wild("mvn r0, #3 ; mov pc, r0", {0xC: "add r4, r4, #1 ; subs pc, lr, #4"}),
    "interrupt storm": Wild(_STORM, {0x18: "subs pc, lr, #4"}),
    "interrupts without a handler": Wild(_STORM, {0x18: "b ."}),
    "nothing wakes it": Wild("wfi", end=StopReason.HALTED),
    "nothing wakes it, for ever": Wild("loop: wfi ; b loop", end=StopReason.HALTED),
    "code in a device": Wild("ldr r0, =0x101f1000 ; mov pc, r0", end=StopReason.FAULT),
    "code in a device, and a handler there": Wild("ldr r0, =0x101f1000 ; mov pc, r0", {0xC: "mov pc, r0"}, storm=True),
    "code in a hole": Wild("mov r0, #0x20000000 ; mov pc, r0", end=StopReason.FAULT),
    "vectors in a device": Wild(_MMU_ON + "svc #1", words={TABLE: _section(0x10100000)}, end=StopReason.FAULT),
    "a table that maps nothing": Wild(_MMU_ON + "b .", words={}, end=StopReason.FAULT),
    "a table that is its own second level": Wild(
        _MMU_ON + "b .", words={TABLE + 4 * n: TABLE | 1 for n in range(256)}
    ),
    "a second level in a device": Wild(_MMU_ON + "b .", words={TABLE: 0x101F1001}, end=StopReason.FAULT),
    "a table in a device": Wild(_MMU_ON.replace(f"#0x{TABLE:x}", "#0x10000000") + "b .", end=StopReason.FAULT),
    "a table beyond all memory": Wild(_MMU_ON.replace(f"#0x{TABLE:x}", "#0x40000000") + "b .", end=StopReason.FAULT),
    "a guest that overwrites its table": Wild(
        f"{_MMU_ON} ; mov r1, #0x{TABLE:x} ; str r1, [r1] ; add r1, r1, #0xf80\n"
        "loop: str r1, [r1] ; add r1, r1, #4 ; b loop",
        {0xC: "subs pc, lr, #4", 0x10: "subs pc, lr, #4"},
        {TABLE: _section(0)},
        StopReason.FAULT,
    ),
}  # fmt: skip


def start(wild: Wild, tier: TierName) -> Machine:
    machine = Machine(memory=RAM, tier=tier, jit="sync", console=CaptureConsole())
    machine.load_bytes(assemble(wild.code, BASE), BASE)
    for gpa, source in wild.vectors.items():
        machine.write(gpa, assemble(source, gpa))
    for gpa, word in wild.words.items():
        machine.write(gpa, struct.pack("<I", word))
    _ = machine.tier
    return machine


def outcome(machine: Machine, result: RunResult) -> tuple[StopReason, int, int, str, str]:
    return result.reason, result.icount, result.pc, result.message, state_hash(machine)


@pytest.mark.parametrize("name", WILD)
def test_fuel(name: str) -> None:
    """And all tiers agree about where the guest is."""
    wild = WILD[name]
    found = {}
    for tier in TIERS:
        machine = start(wild, tier)
        result = machine.run(fuel=FUEL, timeout=60)
        assert result.reason is wild.end, (tier, result)
        assert result.message and (result.icount == FUEL or wild.end is not StopReason.FUEL)
        found[tier] = outcome(machine, result)
    assert found == dict.fromkeys(TIERS, found["reference"])


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", [n for n, wild in WILD.items() if wild.end is StopReason.FUEL and not wild.storm])
def test_time(name: str, tier: TierName) -> None:
    machine = start(WILD[name], tier)
    result = machine.run(timeout=0.1)
    assert result.reason is StopReason.TIMEOUT and "time limit" in result.message
    timer = threading.Timer(0.1, machine.interrupt)
    timer.start()
    result = machine.run(timeout=30)
    timer.join()
    assert result.reason is StopReason.INTERRUPTED and "interrupted after" in result.message
