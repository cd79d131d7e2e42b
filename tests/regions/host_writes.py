"""Loops whose code or constants the hypervisor writes over, with a region of them installed or being compiled."""

from __future__ import annotations

from dbt.abi.addresses import Gpa
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, RAM_SIZE, SmallMachine, SoonHotTier, same_state

#: A loop of one round, and in the next page another one behind its literal.
LOOP = assemble("""
    mov r1, #1
    first: subs r1, r1, #1 ; bne first
    mov r1, #0x1000
    b . + 0xFFC
""").ljust(0x1000, b"\0") + assemble("""
    .word 0
    word: .word 7
    .word 0
    loop: add r0, r0, #1 ; ldr r2, word ; subs r1, r1, #1 ; bne loop ; svc #0
""")
LITERAL, HEAD = ENTRY + 0x1004, ENTRY + 0x100C
#: Where, and what: an instruction, a byte of it, a literal, and all of RAM from there on.
WRITES = {
    "an instruction": (HEAD, assemble("sub r0, r0, #3")),
    "the second instruction": (HEAD + 4, assemble("mov r2, #9")),
    "a byte of an instruction": (HEAD, b"\x05"),
    "the middle of two instructions": (HEAD + 2, b"\x81\xe2\x01\x20"),
    "a literal": (LITERAL, b"\x01\x02\x03\x04"),
    "the end of a literal": (LITERAL + 3, b"\x55"),
    "a literal and what is before it": (LITERAL - 4, bytes(4) + b"\x01\x02\x03\x04"),
    "a literal and the page before it": (LITERAL - 8, bytes(8) + b"\x01\x02\x03\x04"),
    "a literal and two pages before it": (ENTRY - 4, bytes(4) + LOOP[:0x1004] + b"\x01\x02\x03\x04"),
    "all of RAM": (LITERAL, b"\x01\x02\x03\x04" + bytes(RAM_SIZE - LITERAL - 4)),
}


def writes_are_seen(name: str) -> bool:
    """Whether the tiers agree when RAM is written in the middle of a loop whose region is installed."""
    address, data = WRITES[name]
    machines = [SmallMachine(kind, assemble("mov r1, #0x80") + LOOP[4:]) for kind in ("threaded", "sync")]
    for machine in machines:
        machine.advance(1000)
        machine.memory.write_ram(Gpa(address), data)
        machine.advance(100_000)
    tier = machines[1].tier
    assert tier.regions is not None and tier.regions.counts.compiled
    tier.close()
    return same_state(machines)


def outdated_regions_are_refused(name: str) -> bool:
    """Whether they agree when RAM is written after the region was compiled and before it is installed."""
    address, data = WRITES[name]
    machines = [SmallMachine(kind, LOOP) for kind in ("threaded", "async")]
    tier = machines[1].tier
    assert isinstance(tier, SoonHotTier)
    for machine in machines:
        machine.advance(20)
        if machine is machines[1]:
            tier.ask_for(HEAD)
            tier.settle()
        machine.memory.write_ram(Gpa(address), data)
        machine.advance(100_000)
    assert tier.regions is not None and tier.regions.counts.compiled + tier.regions.counts.outdated
    tier.close()
    return same_state(machines)
