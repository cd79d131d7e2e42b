"""The registers that a debugger sees: those of gdb's ARM core, and the privileged ones as a feature of this project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dbt.abi.cpu import CpuState
from dbt.gdb.target import Register
from isa.arm.state import BANKS, LAYOUT, Mode

CORE_FEATURE, SYSTEM_FEATURE = "org.gnu.gdb.arm.core", "org.dbt.arm.system"
PC, CPSR = 15, 25
#: gdb numbers the registers that are no longer in use (of the FPA) between PC and CPSR.
_FIRST_SYSTEM = CPSR + 1
_SPSR = LAYOUT["spsr"].index
_BANKED_MODES = (
    ("usr", Mode.USER),
    ("fiq", Mode.FIQ),
    ("irq", Mode.IRQ),
    ("svc", Mode.SUPERVISOR),
    ("abt", Mode.ABORT),
    ("und", Mode.UNDEFINED),
)
#: The registers of CP15, which a debugger can only read: the guest's own MCR does more than to set a word.
_CP15 = (
    "midr", "sctlr", "actlr", "cpacr", "ttbr0", "ttbr1", "ttbcr", "dacr", "dfsr", "ifsr", "dfar", "ifar", "par",
    "vbar", "contextidr", "fcseidr", "tpidrurw", "tpidruro", "tpidrprw",
)  # fmt: skip


class _System(NamedTuple):
    """How a privileged register is read, and written if it can be."""

    name: str
    read: Callable[[CpuState], int]
    write: Callable[[CpuState, int], None] | None


def _banked(name: str, number: int, mode: Mode) -> _System:
    def write(cpu: CpuState, value: int) -> None:
        cpu.set_banked(number, mode, value)

    return _System(name, lambda cpu: cpu.banked(number, mode), write)


def _spsr(name: str, mode: Mode) -> _System:
    index = _SPSR + BANKS[mode]

    def write(cpu: CpuState, value: int) -> None:
        cpu.words[index] = value & 0xFFFFFFFF

    return _System(name, lambda cpu: cpu.words[index], write)


def _word(name: str) -> _System:
    return _System(name, lambda cpu: cpu[name], None)


def _system_registers() -> Iterator[_System]:
    for number in range(8, 13):
        yield _banked(f"r{number}_usr", number, Mode.USER)
        yield _banked(f"r{number}_fiq", number, Mode.FIQ)
    for suffix, mode in _BANKED_MODES:
        yield _banked(f"sp_{suffix}", 13, mode)
        yield _banked(f"lr_{suffix}", 14, mode)
        if BANKS[mode]:
            yield _spsr(f"spsr_{suffix}", mode)
    yield from map(_word, _CP15)


_SYSTEM = dict(enumerate(_system_registers(), _FIRST_SYSTEM))


def _core_registers() -> Iterator[Register]:
    for number in range(13):
        yield Register(f"r{number}", number)
    yield Register("sp", 13, "data_ptr")
    yield Register("lr", 14)
    yield Register("pc", PC, "code_ptr")
    yield Register("cpsr", CPSR)


#: The registers by gdb's features.
FEATURES: Mapping[str, Sequence[Register]] = {
    CORE_FEATURE: tuple(_core_registers()),
    SYSTEM_FEATURE: tuple(Register(found.name, number, group="system") for number, found in _SYSTEM.items()),
}


def read_register(cpu: CpuState, number: int) -> int:
    """Return the register of that number. Raise KeyError if there is none."""
    if 0 <= number <= PC:
        return cpu.r[number]
    return cpu.cpsr if number == CPSR else _SYSTEM[number].read(cpu)


def write_system_register(cpu: CpuState, number: int, value: int) -> str | None:
    """Set a privileged register. Return its name if it can only be read, else None. Raise KeyError if there is none."""
    found = _SYSTEM[number]
    if found.write is None:
        return found.name
    found.write(cpu, value)
    return None
