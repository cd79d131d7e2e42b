"""The meaning of the guest's addresses at one moment, by its own page tables and by the shadow page tables.

A mapping is ``[gva, gpa, size, rights]``: consecutive pages that go to consecutive places with equal rights.
Rights are letters: ``r w x`` for privileged code and ``R W X`` for user mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import PAGE_SIZE
from isa.arm.faults import FAULT_MASK, AccessKind
from isa.arm.state import SCTLR_M

if TYPE_CHECKING:
    from dbt.memory.translation import Translation
    from dbt.vm.machine import Machine

_MEGABYTE = 1 << 20
_SECTION = 2
_ACCESSES = tuple(
    (letter.upper() if user else letter, kind | user)
    for user in (0, AccessKind.USER)
    for letter, kind in (("r", 0), ("w", AccessKind.WRITE), ("x", AccessKind.EXECUTE))
)


def memory_maps(machine: Machine) -> dict[str, Any]:
    """``registers`` that say how the tables are read, ``guest`` mappings, and ``shadow``: for each address space
    its number, whether it is the current one, and the mappings filled. All empty where the MMU is off.
    """
    cpu = machine.cpu
    names = ("sctlr", "ttbr0", "ttbr1", "ttbcr", "dacr", "contextidr", "fcseidr")
    translation = machine.memory.translation
    is_on = bool(cpu["sctlr"] & SCTLR_M)
    return {
        "registers": {name: cpu[name] for name in names},
        "guest": list(_merged(_guest_pages(machine, translation))) if is_on and translation is not None else [],
        "shadow": [
            {"space": number, "current": number == cpu.native("space"), "mappings": list(_merged(pages))}
            for number, pages in (machine.tier.shadow_pages() if is_on else ())
        ],
    }


def _guest_pages(machine: Machine, translation: Translation) -> Iterator[tuple[Gva, Gpa, int, str]]:
    """Yield GVA, GPA, size in bytes and rights of each page that is mapped."""
    for gva in map(Gva, range(0, 1 << 32, _MEGABYTE)):
        kind = _first_level(machine, gva) & 3
        if not kind:
            continue
        step = _MEGABYTE if kind == _SECTION else PAGE_SIZE
        for start in map(Gva, range(gva, gva + _MEGABYTE, step)):
            found = {letter: translation.walk(start, access) for letter, access in _ACCESSES}
            rights = "".join(letter for letter, result in found.items() if not result >> 32 & FAULT_MASK)
            if rights:
                yield start, Gpa(found[rights[0]] & 0xFFFFFFFF), step, rights


def _first_level(machine: Machine, gva: Gva) -> int:
    """Return the first-level descriptor of an address (DDI 0406C B3.5.1, B3.5.5), or 0 if the table is not in RAM."""
    cpu = machine.cpu
    mva = gva + (cpu["fcseidr"] & 0xFE000000) if gva < 1 << 25 else gva
    n = cpu["ttbcr"] & 7
    if mva >> 32 - n and n:
        table, index = cpu["ttbr1"] & 0xFFFFC000, mva >> 20
    else:
        table, index = cpu["ttbr0"] >> 14 - n << 14 - n, mva >> 20 & (0xFFF >> n)
    return machine.peek_word(table + 4 * index) or 0


def _merged(pages: Iterator[tuple[Gva, Gpa, int, str]]) -> Iterator[list[Any]]:
    run: list[Any] = []
    for gva, gpa, size, rights in pages:
        if run and gva == run[0] + run[2] and gpa == run[1] + run[2] and rights == run[3]:
            run[2] += size
        else:
            if run:
                yield run
            run = [gva, gpa, size, rights]
    if run:
        yield run


def executed_words(machine: Machine) -> dict[int, str]:
    """Return by page of RAM a bitmap, lowest first, in hexadecimal, of its words that were executed and not written
    since.
    """
    found = {}
    for page in machine.ram.pages_with_code():
        words = map(Gpa, range(page * PAGE_SIZE, (page + 1) * PAGE_SIZE, 4))
        bits = sum(1 << number for number, gpa in enumerate(words) if machine.tier.is_decoded(gpa))
        found[page] = bits.to_bytes(PAGE_SIZE // 32, "little").hex()
    return found


def places_of(executed: dict[int, str]) -> Iterator[Gpa]:
    """Yield the GPA of each word of what :func:`executed_words` returned."""
    for page, text in executed.items():
        bits = int.from_bytes(bytes.fromhex(text), "little")
        yield from (Gpa(page * PAGE_SIZE + 4 * number) for number in range(PAGE_SIZE // 4) if bits >> number & 1)
