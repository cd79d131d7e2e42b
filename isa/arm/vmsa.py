"""The walk of the guest's page tables: short descriptors of VMSAv5, v6 and v7 (ARM ARM B3.5, DDI 0100I B4).

It finds what the guest's page tables say of an address, and whether the access is permitted. Nothing is cached here.
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.arm.faults import BROAD, FAULT_MASK, PARTIAL, SUPERSECTION, Fault
from isa.arm.recorder import Recorder, routine
from isa.arm.state import SCTLR_AFE, SCTLR_M, SCTLR_XP, Architecture
from isa.ir.uop import Uop

_SECTION, _PAGE = 0, 2  # added to the first of the codes that come in pairs
_GPA, _AP, _APX, _XN, _LEVEL, _DOMAIN, _EXTENT = range(7)  # scratch words


@dataclass(slots=True)
class _Walk:
    """One translation while it is recorded."""

    u: Recorder
    address: Uop

    def fault(self, condition: Uop, code: Uop | Fault, domain: Uop | int = 0) -> None:
        """End the walk with a fault if ``condition`` holds."""
        u = self.u
        with u.when(condition):
            status = u.value(code, 32) | u.value(domain, 32) << 4
            u.result(status.zext(64) << 32)

    def descriptor(self, gpa: Uop, code: Fault, domain: Uop | int) -> Uop:
        self.fault(~self.u.in_ram(gpa), code, domain)
        return self.u.load_physical(gpa)


def modified_address(u: Recorder, gva: Uop) -> Uop:
    """Return the modified virtual address: below 32 MB, the FCSE's process ID is added on top (DDI 0100I B8)."""
    return u.select((gva >> 25) == 0, gva + (u.get("fcseidr") & 0xFE000000), gva)


@routine
def report_translation(u: Recorder, gpa: Uop, status: Uop) -> None:
    """Set PAR to the page or the fault that :func:`translate` has found (B4.1.112)."""
    fault = status & FAULT_MASK
    has_size = (status & SUPERSECTION != 0) & ~u.get("architecture").ult(int(Architecture.V7))
    page = u.select(has_size, gpa & 0xFF000000 | PAR_SS, gpa & 0xFFFFF000)
    u.set("par", u.select(fault != 0, (fault & 15) << 1 | 1, page | PAR_NS))


#: PAR.SS (B4.1.112): the address is in a supersection, and only its bits 31:24 are in PAR. ARMv6 has no such bit.
PAR_SS = 1 << 1
#: PAR.NS: without the Security Extensions all memory is non-secure.
PAR_NS = 1 << 9


@routine
def translate(u: Recorder, gva: Uop, access: Uop) -> Uop:
    """Return the physical address in the lower 32 bits. The upper 32 bits may then be :data:`PARTIAL` or :data:`BROAD`,
    and :data:`SUPERSECTION` beside that.

    On a fault the lower 32 bits are 0, and the upper ones are the value for the fault status register (table B3-23,
    with the domain in bits 7:4).
    """
    sctlr = u.get("sctlr")
    with u.when((sctlr & SCTLR_M) == 0):
        u.result(gva.zext(64))
    mva = modified_address(u, gva)
    walk = _Walk(u, mva)
    first = _first_level(walk)
    old_format = (sctlr & SCTLR_XP) == 0
    kind = first & 3
    architecture = u.get("architecture")
    has_fine = architecture.ult(6) | ((architecture == 8) & old_format)
    supersection = ~has_fine & (kind == 2) & first.bit(18)
    domain = u.select(supersection, 0, first >> 5 & 15)
    faulty = (kind == 0) | ((kind == 3) & ~has_fine)
    walk.fault(faulty, Fault.TRANSLATION_SECTION, u.select(has_fine, domain, 0))
    u.temp[_DOMAIN] = domain
    u.temp[_EXTENT] = u.const(0)
    with u.when(kind == 2):
        u.temp[_EXTENT] = u.select(supersection, BROAD | SUPERSECTION, BROAD)
        whole = u.select(supersection, first & 0xFF000000 | mva & 0xFFFFFF, first & 0xFFF00000 | mva & 0xFFFFF)
        _found(u, whole, first >> 10 & 3, first.bits(15, 15), first.bits(4, 4), _SECTION)
    with u.when(kind != 2):
        _second_level(walk, first, kind == 3, domain, old_format, has_fine)
    return _check(walk, access, old_format)


def _first_level(walk: _Walk) -> Uop:
    """Return the descriptor from the table that TTBCR selects: TTBR0's, or TTBR1's for high addresses."""
    u, mva = walk.u, walk.address
    n = u.get("ttbcr") & 7
    high = (mva.zext(64) << n.zext(64) >> 32).trunc(32) != 0
    walk.fault(u.select(high, u.get("ttbcr").bit(5), u.get("ttbcr").bit(4)), Fault.TRANSLATION_SECTION)
    low_table = u.get("ttbr0") & (u.const(0xFFFFC000).ashr(n))
    table = u.select(high, u.get("ttbr1") & 0xFFFFC000, low_table)
    index = u.select(high, mva, mva & (u.const(0xFFFFFFFF) >> n)) >> 20
    return walk.descriptor(table | index << 2, Fault.EXTERNAL_ON_WALK_1, 0)


def _found(u: Recorder, gpa: Uop, ap: Uop, apx: Uop, xn: Uop, level: int) -> None:
    u.temp[_GPA], u.temp[_AP], u.temp[_APX], u.temp[_XN] = gpa, ap, apx, xn
    u.temp[_LEVEL] = u.const(level)


def _second_level(walk: _Walk, first: Uop, fine: Uop, domain: Uop, old_format: Uop, has_fine: Uop) -> None:
    u, mva = walk.u, walk.address
    coarse_place = first & 0xFFFFFC00 | (mva >> 12 & 0xFF) << 2
    fine_place = first & 0xFFFFF000 | (mva >> 10 & 0x3FF) << 2
    second = walk.descriptor(u.select(fine, fine_place, coarse_place), Fault.EXTERNAL_ON_WALK_2, domain)
    kind = second & 3
    # On ARMv5, a coarse table has no descriptors of kind 3; in a fine table they are tiny pages.
    walk.fault((kind == 0) | ((kind == 3) & has_fine & ~fine), Fault.TRANSLATION_PAGE, domain)
    page = second & 0xFFFFF000 | mva & 0xFFF
    with u.when(kind == 1):
        u.temp[_EXTENT] = u.const(BROAD)
        subpage = second >> (mva >> 13 & 6) >> 4 & 3
        gpa = second & 0xFFFF0000 | mva & 0xFFFF
        ap = u.select(old_format, subpage, second >> 4 & 3)
        _found(u, gpa, ap, second.bits(9, 9), second.bits(15, 15), _PAGE)
    with u.when((kind == 2) & old_format):
        subpage = second >> (mva >> 9 & 6) >> 4 & 3
        _found(u, page, subpage, u.const(0), u.const(0), _PAGE)
        u.temp[_EXTENT] = u.select((second >> 4 & 3) * 0x55 == (second >> 4 & 0xFF), 0, PARTIAL)
    with u.when((kind == 3) & fine):
        _found(u, second & 0xFFFFFC00 | mva & 0x3FF, second >> 4 & 3, u.const(0), u.const(0), _PAGE)
        u.temp[_EXTENT] = u.const(PARTIAL)
    with u.when(((kind == 3) & ~fine) | ((kind == 2) & ~old_format)):
        _found(u, page, second >> 4 & 3, second.bits(9, 9), second.bits(0, 0), _PAGE)


def _check(walk: _Walk, access: Uop, old_format: Uop) -> Uop:
    """Check domain and permissions of the page that was found (B3.7), and return the walk's result."""
    u = walk.u
    domain, level = u.temp[_DOMAIN], u.temp[_LEVEL]
    rights = u.get("dacr") >> (domain << 1) & 3
    walk.fault(~rights.bit(0), level + Fault.DOMAIN_SECTION, domain)
    sctlr = u.get("sctlr")
    # AP[0] is the access flag, so the permissions are AP[2:1], as if AP[0] were set.
    by_flag = ~old_format & ((sctlr & SCTLR_AFE) != 0)
    flag_code = u.select(level == _PAGE, int(Fault.ACCESS_FLAG_PAGE), int(Fault.ACCESS_FLAG_SECTION))
    walk.fault(by_flag & ~u.temp[_AP].bit(0), flag_code, domain)
    ap = u.temp[_AP] | by_flag.zext(32)
    read_only = ~old_format & u.temp[_APX].bit(0)
    never = ~old_format & u.temp[_XN].bit(0)
    user, write = access.bit(1), access.bit(0)
    # AP = 0 grants nothing, except what the bits S and R of ARMv5 and v6 grant for reading.
    system, rom = sctlr.bit(8), sctlr.bit(9)
    reads_zero = u.select(user, rom & ~system, system ^ rom)
    reads = u.select(ap == 0, reads_zero & ~read_only, u.select(ap == 1, ~user, u.const(1, 1)))
    writes = ~read_only & u.select(user, ap == 3, ap != 0)
    allowed = u.select(write, writes, reads) & ~(access.bit(2) & never)
    walk.fault(~allowed & (rights == 1), level + Fault.PERMISSION_SECTION, domain)
    return u.temp[_GPA].zext(64) | u.temp[_EXTENT].zext(64) << 32
