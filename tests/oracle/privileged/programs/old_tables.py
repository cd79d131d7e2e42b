"""The translation tables of ARMv5, and of ARMv6 with SCTLR.XP clear: who may do what in which descriptor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.oracle.privileged import tables
from tests.oracle.privileged.accesses import ACCESSES, access
from tests.oracle.privileged.layout import FRAMES, L2, Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import CLIENT, DOMAIN, SCTLR_R, SCTLR_S, SCTLR_XP, VA, Poke

_MEGABYTE = VA
_VA = VA + 0x15400
_LARGE = FRAMES + 0x20000
_SMALL = FRAMES + 0x33000
_TINY = FRAMES + 0x77C00


def _sctlr(cpu: Cpu, bits: int = 0) -> int:
    return tables.sctlr(cpu, bits) & ~SCTLR_XP


def _section(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    return FRAMES + 0x15400, [tables.l1_entry(_MEGABYTE, tables.section(cpu, FRAMES, ap, domain))]


def _coarse(cpu: Cpu, domain: int) -> Poke:
    return tables.l1_entry(_MEGABYTE, tables.coarse(cpu, L2, domain))


def _fine(domain: int) -> Poke:
    return tables.l1_entry(_MEGABYTE, tables.fine(L2, domain))


def _in_coarse(va: int, count: int, word: int) -> list[Poke]:
    return [tables.l2_entry((va & ~0xFFFF if count > 1 else va) + 0x1000 * n, word) for n in range(count)]


def _in_fine(va: int, count: int, word: int) -> list[Poke]:
    first = va & -0x400 * count
    return [tables.fine_entry(first + 0x400 * n, word) for n in range(count)]


def _large(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    word = tables.old_large(_LARGE, (ap,) * 4)
    return _LARGE + 0x5400, [_coarse(cpu, domain), *_in_coarse(_VA, 16, word)]


def _small(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    return _SMALL + 0x400, [_coarse(cpu, domain), *_in_coarse(_VA, 1, tables.old_small(_SMALL, (ap,) * 4))]


def _extended_small(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    return _SMALL + 0x400, [_coarse(cpu, domain), *_in_coarse(_VA, 1, tables.tiny(_SMALL, ap))]


def _fine_large(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    word = tables.old_large(_LARGE, (ap,) * 4)
    return _LARGE + 0x5400, [_fine(domain), *_in_fine(_VA, 64, word)]


def _fine_small(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    return _SMALL + 0x400, [_fine(domain), *_in_fine(_VA, 4, tables.old_small(_SMALL, (ap,) * 4))]


def _tiny(cpu: Cpu, ap: int, domain: int) -> tuple[int, list[Poke]]:
    return _TINY, [_fine(domain), *_in_fine(_VA, 1, tables.tiny(_TINY, ap))]


Format = Callable[[Cpu, int, int], tuple[int, list[Poke]]]


def _formats(cpu: Cpu) -> dict[str, Format]:
    found: dict[str, Format] = {"section": _section, "large page": _large, "small page": _small}
    if cpu.arch == 5:
        found |= {"large page in fine": _fine_large, "small page in fine": _fine_small, "tiny page": _tiny}
    else:
        found["extended small page"] = _extended_small
    return found


def _permissions(cpu: Cpu) -> Iterator[Step]:
    state = {"dacr": tables.dacr(CLIENT)}
    for name, make in _formats(cpu).items():
        for ap in range(4):
            pa, pokes = make(cpu, ap, DOMAIN)
            # S and R together are reserved.
            for bits, text in ((0, ""), (SCTLR_S, " S"), (SCTLR_R, " R")):
                full = f"{name}, AP={ap}{text}"
                yield from access(full, _VA, pa, pokes, {"sctlr": _sctlr(cpu, bits), **state})


def _domains(cpu: Cpu) -> Iterator[Step]:
    for name, make in _formats(cpu).items():
        for domain in (DOMAIN, 15):
            for field in range(4):
                # With the least permissions that a client would be refused for.
                pa, pokes = make(cpu, 1, domain)
                state = {"sctlr": _sctlr(cpu), "dacr": tables.dacr(field, domain)}
                yield from access(f"{name}, domain {domain} is {field:02b}", _VA, pa, pokes, state)
        pa, pokes = make(cpu, 3, 0)
        yield from access(f"{name}, domain 0", _VA, pa, pokes, {"sctlr": _sctlr(cpu)})


def _quarters(cpu: Cpu) -> Iterator[Step]:
    """The permissions of each quarter of a page."""
    state = {"sctlr": _sctlr(cpu), "dacr": tables.dacr(CLIENT)}
    kinds: list[tuple[str, int, int, Callable[[int, Sequence[int]], int], bool]] = [
        ("small page", _SMALL, 0x400, tables.old_small, False),
        ("large page", _LARGE, 0x4000, tables.old_large, False),
    ]
    if cpu.arch == 5:
        kinds += [(f"{name} in fine", pa, size, make, True) for name, pa, size, make, _ in kinds]
    for name, page, size, make, in_fine in kinds:
        start = _VA & ~0xFFF if size == 0x400 else _VA & ~0xFFFF
        for aps in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
            word = make(page, aps)
            if in_fine:
                pokes = [_fine(DOMAIN), *_in_fine(start, size // 0x100, word)]
            else:
                pokes = [_coarse(cpu, DOMAIN), *_in_coarse(start, max(1, size >> 10), word)]
            for quarter in range(4):
                offset = quarter * size + (size - 0x400)
                full = f"{name}, quarter {quarter} of {aps}"
                yield from access(full, start + offset, page + offset, pokes, state, ACCESSES[:4])


def _translation_faults(cpu: Cpu) -> Iterator[Step]:
    state = {"sctlr": _sctlr(cpu), "dacr": tables.dacr(CLIENT)}
    missing = {"no section": [tables.l1_entry(_MEGABYTE, 0)]}
    # Not those of the domain, which the fault status may show or not.
    missing["no section, other bits"] = [tables.l1_entry(_MEGABYTE, 0xFFFFFE1C)]
    missing["no page"] = [_coarse(cpu, DOMAIN), *_in_coarse(_VA, 1, 0)]
    missing["no page, other bits"] = [_coarse(cpu, DOMAIN), *_in_coarse(_VA, 1, 0xFFFFFE1C)]
    if cpu.arch == 5:
        missing["no tiny page"] = [_fine(DOMAIN), *_in_fine(_VA, 1, 0)]
    for name, pokes in missing.items():
        yield from access(name, _VA, FRAMES, pokes, state)
        refused = {**state, "dacr": tables.dacr(0)}
        yield from access(f"{name}, no access to the domain", _VA, FRAMES, pokes, refused)
        yield from access(f"{name}, manager", _VA, FRAMES, pokes, {**state, "dacr": tables.dacr(3)})


def steps(cpu: Cpu) -> list[Step]:
    if cpu.arch == 7:
        return []
    return [*_permissions(cpu), *_domains(cpu), *_quarters(cpu), *_translation_faults(cpu)]
