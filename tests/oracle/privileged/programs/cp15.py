"""The system control coprocessor: what its registers read as, which bits can be written, and who may access them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.privileged.layout import L1, Cpu
from tests.oracle.privileged.program import Step

_Place = tuple[int, int, int, int]  # opc1, CRn, CRm, opc2
_EVERYBODY, _PRIVILEGED = ("usr", "svc", "fiq"), ("svc", "fiq")


def _mrc(place: _Place, register: int = 1) -> str:
    opc1, crn, crm, opc2 = place
    return f".word {0xEE100F10 | opc1 << 21 | crn << 16 | register << 12 | opc2 << 5 | crm:#x}"


def _mcr(place: _Place, register: int = 0) -> str:
    opc1, crn, crm, opc2 = place
    return f".word {0xEE000F10 | opc1 << 21 | crn << 16 | register << 12 | opc2 << 5 | crm:#x}"


def _text(place: _Place) -> str:
    opc1, crn, crm, opc2 = place
    return f"{opc1}, c{crn}, c{crm}, {opc2}"


def _identification(cpu: Cpu) -> Iterator[Step]:
    places: list[_Place] = [(0, 0, 0, opc2) for opc2 in range(4)]
    if cpu.arch >= 6:
        places += [(0, 0, crm, opc2) for crm in (1, 2) for opc2 in range(6 if crm == 2 else 8)]
    if cpu.arch == 7:
        places += [(0, 0, 0, 5), (1, 0, 0, 1), (1, 0, 0, 0), (2, 0, 0, 0)]
    for place in places:
        for mode in ("svc", "usr"):
            yield Step(f"identification {_text(place)} in {mode}", _mrc(place), mode)


def _kept(cpu: Cpu) -> dict[str, tuple[_Place, int]]:
    """Registers that keep what is written, as far as the bits go."""
    kept = {
        "TTBR0": ((0, 2, 0, 0), 0xFFFFC000),
        "DACR": ((0, 3, 0, 0), 0xFFFFFFFF),
        "DFSR": ((0, 5, 0, 0), 0xFF if cpu.arch == 5 else 0xCFF),
        "IFSR": ((0, 5, 0, 1), 0x0F),
        "DFAR": ((0, 6, 0, 0), 0xFFFFFFFF),
        "CONTEXTIDR": ((0, 13, 0, 1), 0xFFFFFFFF),
    }
    if cpu.arch >= 6:
        kept |= {
            "TTBR1": ((0, 2, 0, 1), 0xFFFFC000),
            "TTBCR": ((0, 2, 0, 2), 7),
            "IFAR": ((0, 6, 0, 2), 0xFFFFFFFF),
            "TPIDRURW": ((0, 13, 0, 2), 0xFFFFFFFF),
            "TPIDRURO": ((0, 13, 0, 3), 0xFFFFFFFF),
            "TPIDRPRW": ((0, 13, 0, 4), 0xFFFFFFFF),
        }
    if cpu.arch == 7:
        kept |= {"VBAR": ((0, 12, 0, 0), 0xFFFFFFE0)}
    return kept


def _written(cpu: Cpu) -> Iterator[Step]:
    # The runner restores most of these, and reads others after the step.
    for name, (place, bits) in _kept(cpu).items():
        restore = f"mov r2, #0\n{_mcr(place, 2)}" if name.startswith("TPIDR") or name == "VBAR" else ""
        for value in (0xFFFFFFFF, 0xA5A5A5A5, 0x5A5A5A5A, 0):
            code = f"{_mcr(place)}\n{_mrc(place)}\n{restore}"
            yield Step(f"{name} written with {value & bits:#x}", code, state={"r0": value & bits})
        yield Step(f"{name} read in user mode", f"{_mrc(place)}", "usr", state={"r1": 0})
        yield Step(f"{name} written in user mode", f"{_mcr(place)}\n{_mrc(place)}", "usr", state={"r0": 5, "r1": 0})
    if cpu.arch >= 6:
        code = f"{_mcr((0, 13, 0, 3))}\n{_mcr((0, 13, 0, 2), 2)}\nmsr cpsr_c, #0xd0\n{_mrc((0, 13, 0, 3))}\n"
        yield Step("thread IDs as user mode sees them", code + _mrc((0, 13, 0, 2), 3))


def _control(cpu: Cpu) -> Iterator[Step]:
    """SCTLR bits one by one, those that there are, but not those that make everything else."""
    bits = {"A": 1, "C": 2, "I": 12, "V": 13}
    if cpu.arch <= 6:
        bits |= {"S": 8, "R": 9, "RR": 14, "L4": 15}
    if cpu.arch >= 6:
        bits |= {"Z": 11, "TRE": 28, "AFE": 29}
    if cpu.arch == 6:
        bits |= {"U": 22, "XP": 23}
    place = (0, 1, 0, 0)
    yield Step("SCTLR with what it has after a reset", _mrc(place))
    for name, bit in bits.items():
        code = f"{_mrc(place)}\neor r2, r1, #{1 << bit:#x}\n{_mcr(place, 2)}\n{_mrc(place, 3)}\n{_mcr(place, 1)}"
        yield Step(f"SCTLR.{name} changed", code)
    for value in (0,):
        code = f"{_mcr((0, 1, 0, 2))}\n{_mrc((0, 1, 0, 2))}\nmov r2, #0\n{_mcr((0, 1, 0, 2), 2)}"
        if cpu.arch >= 6:
            yield Step(f"CPACR written with {value:#x}", code, state={"r0": value})


def _operations(cpu: Cpu) -> dict[str, tuple[_Place, tuple[str, ...]]]:
    """Maintenance: nothing happens, if it is allowed. R0 = 0 or an address."""
    found: dict[str, tuple[_Place, tuple[str, ...]]] = {
        "invalidate instruction cache": ((0, 7, 5, 0), _PRIVILEGED),
        "invalidate instruction cache by address": ((0, 7, 5, 1), _PRIVILEGED),
        "invalidate data cache by address": ((0, 7, 6, 1), _PRIVILEGED),
        "clean data cache by address": ((0, 7, 10, 1), _PRIVILEGED),
        "clean data cache by set": ((0, 7, 10, 2), _PRIVILEGED),
        "clean and invalidate data cache by address": ((0, 7, 14, 1), _PRIVILEGED),
        "clean and invalidate data cache by set": ((0, 7, 14, 2), _PRIVILEGED),
        "invalidate instruction TLB": ((0, 8, 5, 0), _PRIVILEGED),
        "invalidate instruction TLB by address": ((0, 8, 5, 1), _PRIVILEGED),
        "invalidate data TLB": ((0, 8, 6, 0), _PRIVILEGED),
        "invalidate data TLB by address": ((0, 8, 6, 1), _PRIVILEGED),
        "invalidate TLB": ((0, 8, 7, 0), _PRIVILEGED),
        "drain write buffer": ((0, 7, 10, 4), _EVERYBODY if cpu.arch >= 6 else _PRIVILEGED),
    }
    if cpu.arch <= 6:
        found["invalidate caches"] = ((0, 7, 7, 0), _PRIVILEGED)
        found["invalidate data cache"] = ((0, 7, 6, 0), _PRIVILEGED)
    if cpu.arch == 6:
        found["clean data cache"] = ((0, 7, 10, 0), _PRIVILEGED)
        found["clean and invalidate data cache"] = ((0, 7, 14, 0), _PRIVILEGED)
    if cpu.arch >= 6:
        found["flush prefetch buffer"] = ((0, 7, 5, 4), _EVERYBODY)
        found["data memory barrier"] = ((0, 7, 10, 5), _EVERYBODY)
        found["invalidate branch predictions"] = ((0, 7, 5, 6), _PRIVILEGED)
        found["invalidate TLB by ASID"] = ((0, 8, 7, 2), _PRIVILEGED)
    if cpu.arch == 7:
        found["clean data cache to unification"] = ((0, 7, 11, 1), _PRIVILEGED)
    return found


def _maintenance(cpu: Cpu) -> Iterator[Step]:
    for name, (place, allowed) in _operations(cpu).items():
        for mode in ("svc", "fiq", "usr"):
            assert mode in allowed or mode == "usr"
            yield Step(f"{name} in {mode}", _mcr(place), mode, state={"r0": 0x100000})
    if cpu.arch == 5:
        for name, place in (("test and clean", (0, 7, 10, 3)), ("test, clean and invalidate", (0, 7, 14, 3))):
            yield Step(f"{name} into the flags", f"{_mrc(place, 15)}\nmoveq r1, #1\nmovne r1, #2", flags=0x90000000)


def _undefined(cpu: Cpu) -> Iterator[Step]:
    """Coprocessors that are not there, and conditional accesses that are not made."""
    words = {
        "mcr p6": 0xEE000610,
        "cdp p5": 0xEE000500,
        "ldc p7": 0xED900700,
        "stc p4": 0xED800400,
        "mcrr p3": 0xEC410300,
        "mrrc p3": 0xEC510300,
        "vmrs": 0xEEF10A10,
        "vadd.f32": 0xEE300A00,
        "vldr": 0xED900A00,
        "cdp p15": 0xEE000F00,
        "ldc p15": 0xED900F00,
    }
    if cpu.arch == 5:
        words = {name: word for name, word in words.items() if not name.startswith("v")}
    for name, word in words.items():
        for mode in ("usr", "svc"):
            yield Step(f"{name} in {mode}", f".word {word:#x}", mode, state={"r0": L1})
    for place in ((0, 4, 0, 0), (3, 1, 0, 0), (7, 2, 0, 0), (5, 0, 0, 0)):
        for mode in ("usr", "svc"):
            yield Step(f"no register {_text(place)}, read in {mode}", _mrc(place), mode)
            yield Step(f"no register {_text(place)}, written in {mode}", _mcr(place), mode)


def steps(cpu: Cpu) -> list[Step]:
    found = [*_identification(cpu), *_written(cpu), *_control(cpu), *_maintenance(cpu), *_undefined(cpu)]
    return found
