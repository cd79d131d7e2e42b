"""Loads, stores and fetches of every width across every boundary of RAM, devices and holes: the architected abort.

A guest makes all of them in loops, and its handlers log what they were told. The reference tier's log is checked
against what is where; the other tiers must leave the same registers and the same RAM.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Literal

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.engine.tier import Allowance, Tier
from dbt.host.console import CaptureConsole
from dbt.memory.guest_memory import GuestMemory
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.faults import Fault
from tests.assembler import assemble
from tests.oracle.programs import EagerRegionTier
from tests.vm.programs import BASE, EXIT

#: A tier of Machine, or the region tier that compiles at once.
SweptTier = Literal["reference", "threaded", "stitched", "auto", "eager"]
RAM = 4 << 20
TABLE, ADDRESSES, LOG = 0x4000, 0x30000, 0x100000
_RECORD = struct.Struct("<6I")
_OFFSETS = (-8, -5, -4, -2, -1, 0, 1)
#: Megabytes that are not mapped when the MMU is on; all others are where they are.
UNMAPPED = (0x200, 0x101)
_RETURN = 0xE1A0F00B  # mov pc, r11


@dataclass(frozen=True)
class Access:
    """``units``: how many accesses of ``size`` bytes it is made of; if ``strict``, it must be aligned to 4."""

    code: str
    size: int
    write: bool = False
    units: int = 1
    strict: bool = False


FETCH = Access("bic r0, r0, #3 ; add r11, pc, #0 ; mov pc, r0", 4)
ACCESSES = (
    FETCH,  # first: the stores overwrite the code at the end of RAM
    Access("ldrb r1, [r0]", 1),
    Access("ldrsb r1, [r0]", 1),
    Access("ldrh r1, [r0]", 2),
    Access("ldrsh r1, [r0]", 2),
    Access("ldr r1, [r0]", 4),
    Access("ldr r1, [r0], #4", 4),
    Access("ldrt r1, [r0]", 4),
    Access("ldrd r2, r3, [r0]", 4, units=2, strict=True),
    Access("ldm r0, {r1, r2, r3}", 4, units=3, strict=True),
    Access("strb r1, [r0]", 1, True),
    Access("strh r1, [r0]", 2, True),
    Access("str r1, [r0]", 4, True),
    Access("str r1, [r0, #0]!", 4, True),
    Access("strt r1, [r0]", 4, True),
    Access("strd r2, r3, [r0]", 4, True, units=2, strict=True),
    Access("stm r0!, {r1, r2}", 4, True, units=2, strict=True),
)

_MMU_ON = f"""
    mov r0, #0x{TABLE:x} ; mcr p15, 0, r0, c2, c0, 0 ; mov r0, #1 ; mcr p15, 0, r0, c3, c0, 0
    mrc p15, 0, r0, c1, c0, 0 ; orr r0, r0, #1 ; mcr p15, 0, r0, c1, c0, 0
"""
_DATA_ABORT = "mrc p15, 0, r8, c5, c0, 0 ; mrc p15, 0, r9, c6, c0, 0 ; subs pc, lr, #4"
_PREFETCH_ABORT = "mrc p15, 0, r8, c5, c0, 1 ; sub r9, lr, #4 ; mov lr, r11 ; movs pc, lr"
_HANDLERS = 0x1000


def _words(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def _loop(access: Access, number: int, count: int) -> str:
    return f"""
        mov r7, #0x{ADDRESSES:x} ; movw r6, #{count}
    loop{number}:
        ldr r0, [r7], #4 ; mov r1, #0x11 ; mov r2, #0x22 ; mov r3, #0x33 ; mov r8, #0 ; mov r9, #0
        {access.code}
        stmia r10!, {{r0, r1, r2, r3, r8, r9}}
        subs r6, r6, #1 ; bne loop{number}
    """


def addresses(machine: Machine) -> list[int]:
    bounds = {RAM, *(megabyte + n << 20 for megabyte in UNMAPPED for n in (0, 1))}
    for window in machine.board.bus.windows[::5]:  # an abort takes milliseconds in the reference tier
        bounds |= {window.base, window.end}
    found = {bound + offset & 0xFFFFFFFF for bound in bounds for offset in _OFFSETS}
    return sorted(found | {0x1_0000_0000 + offset for offset in _OFFSETS if offset < 0})


def _eager(cpu: CpuState, memory: GuestMemory, allowance: Allowance) -> Tier:
    return EagerRegionTier(cpu, memory, regions=16, allowance=allowance)


def prepare(tier: SweptTier, mmu: bool) -> Machine:
    machine = Machine(memory=RAM, tier=_eager if tier == "eager" else tier, jit="sync", console=CaptureConsole())
    where = addresses(machine)
    code = f"mov r10, #0x{LOG:x}\n" + (_MMU_ON if mmu else "")
    code += "\n".join(_loop(access, number, len(where)) for number, access in enumerate(ACCESSES))
    machine.load_bytes(assemble(f"{code}\nmov r2, #9\n{EXIT}", BASE), BASE)
    machine.write(0xC, _words(0xE59FF018, 0xE59FF018))  # ldr pc, [pc, #24]
    machine.write(0x2C, _words(_HANDLERS, _HANDLERS + 0x100))
    machine.write(_HANDLERS, assemble(_PREFETCH_ABORT, _HANDLERS))
    machine.write(_HANDLERS + 0x100, assemble(_DATA_ABORT, _HANDLERS + 0x100))
    machine.write(TABLE, _words(*(0 if n in UNMAPPED else n << 20 | 0xC0E for n in range(0x1000))))
    machine.write(ADDRESSES, _words(*where))
    machine.write(RAM - 8, _words(_RETURN, _RETURN))
    return machine


@dataclass(frozen=True)
class Outcome:
    icount: int
    state: str
    console: bytes
    log: tuple[tuple[int, ...], ...]


@cache
def sweep(tier: SweptTier, mmu: bool) -> Outcome:
    machine = prepare(tier, mmu)
    result = machine.run(timeout=200)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 9), result.message
    records = len(ACCESSES) * len(addresses(machine))
    log = machine.read(LOG, records * _RECORD.size)
    assert isinstance(machine.console, CaptureConsole)
    return Outcome(result.icount, state_hash(machine), bytes(machine.console.output), tuple(_RECORD.iter_unpack(log)))


def expected(machine: Machine, access: Access, address: int, mmu: bool) -> int:
    """The fault status, without the bit that tells a store."""
    if access is FETCH:
        address &= ~3
        if mmu and address >> 20 in UNMAPPED:
            return Fault.TRANSLATION_SECTION
        return Fault.NONE if address + 4 <= RAM else Fault.EXTERNAL
    if access.strict and address & 3:
        return Fault.ALIGNMENT
    for unit in range(access.units):
        start = address + unit * access.size
        step = 1 if start % access.size else access.size
        for gva in range(start, start + access.size, step):
            gpa = gva & 0xFFFFFFFF
            if mmu and gpa >> 20 in UNMAPPED:
                return Fault.TRANSLATION_SECTION
            if gpa + step > RAM and not machine.board.bus.covers(Gpa(gpa), step):
                return Fault.EXTERNAL
    return Fault.NONE


@pytest.mark.parametrize("mmu", [False, True], ids=["mmu-off", "mmu-on"])
def test_the_architected_abort(mmu: bool) -> None:
    machine = Machine(memory=RAM, tier="reference", console=CaptureConsole())
    cases = [(access, address) for access in ACCESSES for address in addresses(machine)]
    found = {0: 0, 1: 0}
    for (access, address), (_, r1, r2, r3, status, where) in zip(cases, sweep("reference", mmu).log, strict=True):
        wanted = expected(machine, access, address, mmu)
        what = f"{access.code} at {address:#010x}: {status:#x} {where:#010x}"
        assert status & 0x40F == wanted, what
        if access is not FETCH:
            assert status >> 11 & 1 == (access.write and wanted != 0), what
        if wanted:
            assert (where - address + 3 & 0xFFFFFFFF) < access.size * access.units + 3, what
            assert (r1, r2, r3) == (0x11, 0x22, 0x33) or access.units > 1, what
        found[bool(wanted)] += 1
    assert min(found.values()) > 50


#: Not the eager tier with the MMU on: it would try to compile the vectors anew at every abort.
@pytest.mark.parametrize(
    ("tier", "mmu"),
    [*((tier, mmu) for tier in ("threaded", "stitched", "auto") for mmu in (False, True)), ("eager", False)],
)
def test_every_tier_has_the_same(tier: SweptTier, mmu: bool) -> None:
    assert sweep(tier, mmu) == sweep("reference", mmu)


@pytest.mark.parametrize("tier", ["threaded", "stitched"])
def test_accesses_across_pages_of_ram_are_made_natively(tier: Literal["threaded", "stitched"]) -> None:
    machine = Machine(memory=RAM, tier=tier, console=CaptureConsole())
    accesses = (
        "str r1, [r0] ; ldr r4, [r0] ; strh r1, [r0, #1] ; ldrh r5, [r0, #1] ; ldrsh r6, [r0, #1] ; ldrt r7, [r0]"
    )
    code = f"{_MMU_ON} ; ldr r0, =0x{LOG + 0xFFE:x} ; ldr r1, =0x81828384 ; {accesses} ; mov r2, #9 ; {EXIT}"
    machine.load_bytes(assemble(code, BASE), BASE)
    machine.write(TABLE, _words(*(n << 20 | 0xC0E for n in range(0x1000))))
    with machine:
        result = machine.run(timeout=200)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 9), result.message
        assert list(machine.cpu.r[4:8]) == [0x81828384, 0x8384, 0xFFFF8384, 0x81838484]
        assert machine.read(LOG + 0xFFE, 4) == bytes.fromhex("84848381")
        assert not machine.retired["reference"]
