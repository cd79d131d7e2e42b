"""A guest that maps sections and small pages to other places, and flushes exactly what the architecture wants."""

from __future__ import annotations

import struct
from random import Random

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamRegion
from dbt.vm.machine import TierName
from tests.assembler import assemble
from tests.long import LONG
from tests.vm.programs import EXIT, MODES

BASE, _L1, _L2, _TABLE, _ANSWERS = 0x40008000, 0x40100000, 0x40104000, 0x40200000, 0x40300000
#: Virtual megabytes, and the physical ones to which they are mapped, each page of which begins with its own address.
_VIRTUAL, _PHYSICAL = range(0x100, 0x104), range(0x404, 0x408)
_SECTION, _SUPERSECTION, _TABLE_BITS, _SMALL = 0xC02, 0x40C02, 0x001, 0x032
#: Executes a table of words (operation, address, value), and writes what loads read to another one.
_CODE = f"""
    ldr r0, ={_L1} ; mov r1, #0 ; ldr r2, =0xc02
1:  orr r3, r2, r1, lsl #20 ; str r3, [r0, r1, lsl #2] ; add r1, r1, #1 ; cmp r1, #4096 ; bne 1b
    mcr p15, 0, r0, c2, c0, 0 ; mvn r1, #0 ; mcr p15, 0, r1, c3, c0, 0
    mrc p15, 0, r1, c1, c0, 0 ; orr r1, r1, #1 ; mcr p15, 0, r1, c1, c0, 0 ; isb
    ldr r10, ={_TABLE} ; ldr r11, ={_ANSWERS}
next:
    ldm r10!, {{r4, r5, r6}}
    cmp r4, #1 ; blo end ; streq r6, [r5]
    cmp r4, #2 ; mcreq p15, 0, r5, c8, c7, 1
    cmp r4, #3 ; ldreq r0, [r5] ; streq r0, [r11], #4
    cmp r4, #4 ; mcreq p15, 0, r5, c8, c7, 0
    cmp r4, #5 ; bne next
2:  mcr p15, 0, r5, c8, c3, 3 ; add r5, r5, #0x1000 ; subs r6, r6, #1 ; bne 2b
    b next
end:
    mov r2, #0 ; ldr sp, =0x40070000 ; {EXIT}
"""
_STORE, _FLUSH_PAGE, _LOAD, _FLUSH_ALL, _FLUSH_RANGE = 1, 2, 3, 4, 5


def script(random: Random, count: int) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Operations, and what the loads among them have to read."""
    operations: list[tuple[int, int, int]] = []
    expected: list[int] = []
    sections: dict[int, int | None] = dict.fromkeys(_VIRTUAL)  # None: small pages
    pages: dict[int, int] = {}
    for number, megabyte in enumerate(_VIRTUAL):
        for page in range(256):
            pages[(megabyte << 8) + page] = target = random.choice(_PHYSICAL) << 20 | random.randrange(256) << 12
            operations.append((_STORE, _L2 + number * 1024 + page * 4, target | _SMALL))
        operations.append((_STORE, _L1 + megabyte * 4, _L2 + number * 1024 | _TABLE_BITS))
    operations.append((_FLUSH_ALL, 0, 0))
    for _ in range(count):
        megabyte = random.choice(_VIRTUAL)
        page = (megabyte << 8) + random.choice((0, 1, 2, 255, random.randrange(256)))
        section = sections[megabyte]
        match random.randrange(12):
            case 0:
                target = random.choice(_PHYSICAL)
                operations.append((_STORE, _L1 + megabyte * 4, target << 20 | _SECTION))
                # Of a section, any address will do; of small pages, each has to be flushed.
                flush = (_FLUSH_RANGE, megabyte << 20, 256) if section is None else (_FLUSH_PAGE, page << 12, 0)
                operations.append(flush)
                sections[megabyte] = target
            case 1 if section is not None:
                table = _L2 + (megabyte - _VIRTUAL.start) * 1024
                operations += [(_STORE, _L1 + megabyte * 4, table | _TABLE_BITS), (_FLUSH_PAGE, page << 12, 0)]
                sections[megabyte] = None
            case 2 if section is None:
                pages[page] = target = random.choice(_PHYSICAL) << 20 | random.randrange(256) << 12
                operations.append((_STORE, _L2 + (page - (_VIRTUAL.start << 8)) * 4, target | _SMALL))
                operations.append((_FLUSH_PAGE, page << 12, 0))
            case 3:
                operations.append((_FLUSH_RANGE, _VIRTUAL.start << 20, 256 * len(_VIRTUAL)))
            case _:
                operations.append((_LOAD, page << 12, 0))
                expected.append(pages[page] if section is None else section << 20 | (page & 0xFF) << 12)
    return operations, expected


def answers(tier: TierName, jit: JitMode, operations: list[tuple[int, int, int]]) -> list[int]:
    """What the loads among the operations read."""
    loads = sum(operation == _LOAD for operation, _, _ in operations)
    memory = [RamRegion(Gpa(0x40000000), 8 << 20)]
    with Machine(memory, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a15") as machine:
        machine.load_bytes(assemble(_CODE, BASE), BASE)
        for megabyte in _PHYSICAL:
            for address in range(megabyte << 20, megabyte + 1 << 20, 4096):
                machine.write(address, address.to_bytes(4, "little"))
        machine.write(_TABLE, b"".join(struct.pack("<3I", *each) for each in operations) + bytes(12))
        assert machine.run(fuel=100_000_000).exit_code == 0
        return list(struct.unpack(f"<{loads}I", machine.read(_ANSWERS, 4 * loads)))


@pytest.mark.parametrize("seed", range(2 if LONG else 1))
@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_loads_see_the_new_page(tier: TierName, jit: JitMode, seed: int) -> None:
    operations, expected = script(Random(seed), 1500)
    assert answers(tier, jit, operations) == expected


@pytest.mark.parametrize("flushed", [0, 4, 15])
@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_any_address_will_do_to_flush_a_supersection(tier: TierName, jit: JitMode, flushed: int) -> None:
    """Of each of its sixteen megabytes, those included that nobody has looked at."""
    first, count = 0x300, 16
    operations = [(_STORE, _L1 + (first + number) * 4, 0x40000000 | _SUPERSECTION) for number in range(count)]
    operations += [(_FLUSH_ALL, 0, 0), (_LOAD, first + 4 << 20, 0), (_LOAD, first + 5 << 20, 0)]
    for number in range(count):
        target = _PHYSICAL[1 + number % 2]
        operations.append((_STORE, _L1 + (first + number) * 4, target << 20 | _SECTION))
    operations += [(_FLUSH_PAGE, first + flushed << 20, 0), (_LOAD, first + 4 << 20, 0), (_LOAD, first + 5 << 20, 0)]
    assert answers(tier, jit, operations) == [0x40400000, 0x40500000, 0x40500000, 0x40600000]
