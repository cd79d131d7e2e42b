"""Page tables: the words of descriptors, and the mappings of every program.

They are short descriptors in two formats. That of ARMv5, and of ARMv6 with SCTLR.XP clear, has four permissions in a
page, one for each quarter. The other is that of ARMv6 with XP set, and of ARMv7.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.oracle.privileged import layout, runner
from tests.oracle.privileged.layout import FRAMES, L1, L2, OTHER_L1, Cpu

SCTLR_M, SCTLR_A, SCTLR_S, SCTLR_R, SCTLR_V = 1 << 0, 1 << 1, 1 << 8, 1 << 9, 1 << 13
SCTLR_XP, SCTLR_AFE = 1 << 23, 1 << 29
VA = 0x40000000
DOMAIN = 5  # the domain of the tests' mappings; the program itself is in domain 0
CLIENT, MANAGER = 1, 3
FULL = 3  # AP: everybody may read and write
_NORMAL = 0b1100  # C and B: cached, so that unaligned accesses and exclusives are architected
_UNIT = 0x400
Poke = tuple[int, int]


def dacr(field: int, domain: int = DOMAIN) -> int:
    """Return a DACR with the rights ``field`` for a domain of the tests. Domain 0 is the program's."""
    return CLIENT | field << 2 * domain


def sctlr(cpu: Cpu, bits: int = 0) -> int:
    """Return an SCTLR with the MMU on, in the CPU's format unless XP is cleared."""
    return cpu.sctlr | SCTLR_M | bits | (SCTLR_XP if cpu.arch >= 6 else 0)


def section(cpu: Cpu, pa: int, ap: int = FULL, domain: int = DOMAIN, apx: int = 0, xn: int = 0) -> int:
    bit4 = 1 if cpu.arch == 5 else xn
    return pa | apx << 15 | ap << 10 | domain << 5 | bit4 << 4 | _NORMAL | 0b10


def supersection(pa: int, ap: int = FULL, apx: int = 0, xn: int = 0) -> int:
    """Return a supersection of 16 MB in domain 0, repeated in 16 entries."""
    return pa | 1 << 18 | apx << 15 | ap << 10 | xn << 4 | _NORMAL | 0b10


def coarse(cpu: Cpu, table: int, domain: int = DOMAIN) -> int:
    return table | domain << 5 | (0b10000 if cpu.arch == 5 else 0) | 0b01


def fine(table: int, domain: int = DOMAIN) -> int:
    return table | domain << 5 | 0b10011


def _quarters(aps: Sequence[int]) -> int:
    return sum(ap << 4 + 2 * n for n, ap in enumerate(aps))


def old_large(pa: int, aps: Sequence[int]) -> int:
    """Return a large page of 64 KB, repeated in 16 entries (64 of a fine table)."""
    return pa | _quarters(aps) | _NORMAL | 0b01


def old_small(pa: int, aps: Sequence[int]) -> int:
    return pa | _quarters(aps) | _NORMAL | 0b10


def tiny(pa: int, ap: int) -> int:
    """Return a page of 1 KB in a fine table, or in a coarse one of ARMv6 with XP clear an extended small page."""
    return pa | ap << 4 | _NORMAL | 0b11


def large(pa: int, ap: int = FULL, apx: int = 0, xn: int = 0) -> int:
    return pa | xn << 15 | apx << 9 | ap << 4 | _NORMAL | 0b01


def small(pa: int, ap: int = FULL, apx: int = 0, xn: int = 0) -> int:
    return pa | apx << 9 | ap << 4 | _NORMAL | 0b10 | xn


def page(cpu: Cpu, pa: int, ap: int = FULL) -> int:
    """Return a small page in the CPU's own format."""
    return old_small(pa, (ap,) * 4) if cpu.arch == 5 else small(pa, ap)


def l1_entry(va: int, word: int, table: int = L1) -> Poke:
    return table + (va >> 20) * 4, word


def l2_entry(va: int, word: int, table: int = L2) -> Poke:
    """Return the poke that writes an entry of a coarse table."""
    return table + (va >> 12 & 0xFF) * 4, word


def fine_entry(va: int, word: int, table: int = L2) -> Poke:
    return table + (va >> 10 & 0x3FF) * 4, word


def map_pages(cpu: Cpu, *pages: tuple[int, int | None], domain: int = DOMAIN) -> list[Poke]:
    """Return pokes that map small pages in one megabyte. A physical address of None gives a translation fault."""
    pokes = [l1_entry(pages[0][0], coarse(cpu, L2, domain))]
    return pokes + [l2_entry(va, 0 if pa is None else page(cpu, pa)) for va, pa in pages]


# -- what is there in every program ------------------------------------------------------------------


def marker(unit: int) -> int:
    """Return the word at + 0x10 of a KB of the frames, which shows which one was read or executed."""
    return 0xDA7A0000 | unit


def memory(cpu: Cpu) -> dict[int, int]:
    """Return words by GPA: a map of the first megabytes to themselves, and code in each KB of the frames.

    That code loads the marker of its KB and ends the step.
    """
    words: dict[int, int] = {}
    for table in (L1, OTHER_L1):
        for megabyte in range(layout.MEMORY >> 20):
            words.update([l1_entry(megabyte << 20, section(cpu, megabyte << 20, domain=0), table)])
    for unit in range(0x100000 // _UNIT):
        address = FRAMES + unit * _UNIT
        words[address] = 0xE59F1008  # ldr r1, [pc, #8]
        words[address + 4] = 0xE51FF004  # ldr pc, [pc, #-4]
        words[address + 8] = runner.stub(layout.END)
        words[address + 16] = marker(unit)
    return words
