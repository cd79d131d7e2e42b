"""The translation tables of ARMv6 with SCTLR.XP set, and of ARMv7: who may do what in which descriptor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.oracle.privileged import tables
from tests.oracle.privileged.accesses import ACCESSES, access
from tests.oracle.privileged.layout import FRAMES, L2, Cpu
from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import CLIENT, DOMAIN, SCTLR_AFE, VA, Poke

_VA = VA + 0x15400
_SUPER = VA + 0x115400
_LARGE = FRAMES + 0x20000
_SMALL = FRAMES + 0x33000
_RESERVED = (1, 0)  # APX and AP

#: CPU, AP, APX, XN, domain to the virtual address, the physical one and the descriptors.
Format = Callable[[Cpu, int, int, int, int], tuple[int, int, list[Poke]]]


def _section(cpu: Cpu, ap: int, apx: int, xn: int, domain: int) -> tuple[int, int, list[Poke]]:
    return _VA, FRAMES + 0x15400, [tables.l1_entry(VA, tables.section(cpu, FRAMES, ap, domain, apx, xn))]


def _supersection(cpu: Cpu, ap: int, apx: int, xn: int, domain: int) -> tuple[int, int, list[Poke]]:
    word = tables.supersection(0, ap, apx, xn)
    return _SUPER, FRAMES + 0x15400, [tables.l1_entry(VA + (n << 20), word) for n in range(16)]


def _coarse(cpu: Cpu, domain: int) -> Poke:
    return tables.l1_entry(VA, tables.coarse(cpu, L2, domain))


def _large(cpu: Cpu, ap: int, apx: int, xn: int, domain: int) -> tuple[int, int, list[Poke]]:
    word = tables.large(_LARGE, ap, apx, xn)
    first = _VA & ~0xFFFF
    return _VA, _LARGE + 0x5400, [_coarse(cpu, domain), *(tables.l2_entry(first + (n << 12), word) for n in range(16))]


def _small(cpu: Cpu, ap: int, apx: int, xn: int, domain: int) -> tuple[int, int, list[Poke]]:
    return _VA, _SMALL + 0x400, [_coarse(cpu, domain), tables.l2_entry(_VA, tables.small(_SMALL, ap, apx, xn))]


FORMATS: dict[str, Format] = {
    "section": _section,
    "supersection": _supersection,
    "large page": _large,
    "small page": _small,
}


def _permissions(cpu: Cpu) -> Iterator[Step]:
    for name, make in FORMATS.items():
        for access_flag, bits in (("", 0), (", AFE", SCTLR_AFE)):
            state = {"sctlr": tables.sctlr(cpu, bits), "dacr": tables.dacr(CLIENT)}
            for apx in range(2):
                for ap in range(4):
                    if (apx, ap) == _RESERVED and not bits:
                        continue
                    for xn in range(2):
                        va, pa, pokes = make(cpu, ap, apx, xn, DOMAIN)
                        full = f"{name}, AP={apx}{ap:02b}{' XN' * xn}{access_flag}"
                        chosen = ACCESSES if not bits else ACCESSES[1:6]
                        yield from access(full, va, pa, pokes, state, chosen)


def _domains(cpu: Cpu) -> Iterator[Step]:
    for name, make in FORMATS.items():
        for domain in (DOMAIN, 15):
            if name == "supersection":  # always in domain 0
                continue
            for field in range(4):
                for xn in range(2):
                    va, pa, pokes = make(cpu, 1, 0, xn, domain)
                    state = {"sctlr": tables.sctlr(cpu), "dacr": tables.dacr(field, domain)}
                    full = f"{name}, domain {domain} is {field:02b}{' XN' * xn}"
                    yield from access(full, va, pa, pokes, state)


def _translation_faults(cpu: Cpu) -> Iterator[Step]:
    missing = {
        "no section": [tables.l1_entry(VA, 0)],
        "no section, other bits": [tables.l1_entry(VA, 0xFFFFFE1C)],
        "no page": [_coarse(cpu, DOMAIN), tables.l2_entry(_VA, 0)],
        "no page, other bits": [_coarse(cpu, DOMAIN), tables.l2_entry(_VA, 0xFFFFFFFC)],
    }
    for name, pokes in missing.items():
        for role, field in (("client", CLIENT), ("no access to the domain", 0), ("manager", tables.MANAGER)):
            state = {"sctlr": tables.sctlr(cpu), "dacr": tables.dacr(field)}
            yield from access(f"{name}, {role}", _VA, FRAMES, pokes, state)


def steps(cpu: Cpu) -> list[Step]:
    if cpu.arch == 5:
        return []
    return [*_permissions(cpu), *_domains(cpu), *_translation_faults(cpu)]
