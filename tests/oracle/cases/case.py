"""Cases and outcomes. A case is guest code and the state that it starts in; an outcome is the state that it ends in.

What a case does not mention has a fixed, recognisable value, so that a stray read or write shows:
see :func:`default_register`, :func:`default_word` and :data:`DEFAULT_BANKS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from isa.arm.state import BANKS, PSR_KEPT, Mode

RAM_SIZE = 0x8000  # the guest's RAM is [0, RAM_SIZE); there is nothing above
CODE = 0x5000  # where the code is; its page is [0x5000, 0x6000)
DATA = 0x3000  # memory operands are aimed around this page boundary

WINDOW = 0x100  # ... and at most this many bytes from it
PSR_BITS = 0xF80F0000 | PSR_KEPT
USER_CPSR = int(Mode.USER)
USER_SPSR = 0x60000000 | Mode.USER  # what each banked SPSR starts with

MODE_NAMES = {
    "usr": Mode.USER, "fiq": Mode.FIQ, "irq": Mode.IRQ, "svc": Mode.SUPERVISOR,
    "abt": Mode.ABORT, "und": Mode.UNDEFINED, "sys": Mode.SYSTEM,
}  # fmt: skip
#: The modes whose banks an outcome shows; system mode shares those of user mode.
BANK_MODES = {name: mode for name, mode in MODE_NAMES.items() if name != "sys"}


def default_register(number: int) -> int:
    return 0x99000000 | number


def default_word(gpa: int) -> int:
    """Return the word of RAM at ``gpa``, a multiple of 4."""
    return 0xDA7A0000 | gpa


#: Banked registers by name. Those of the current mode are overlaid by the case's own registers.
DEFAULT_BANKS: dict[str, int] = {
    **{f"r{n}_usr": 0x08000000 | n for n in range(8, 13)},
    **{f"r{n}_fiq": 0x18000000 | n for n in range(8, 13)},
    **{f"sp_{name}": 0x13000000 | mode for name, mode in BANK_MODES.items()},
    **{f"lr_{name}": 0x14000000 | mode for name, mode in BANK_MODES.items()},
    **{f"spsr_{name}": USER_SPSR for name in BANK_MODES if name != "usr"},
}


def bank_name(mode: int) -> str:
    """Return the name that ``mode`` has in the names of its banked registers."""
    return next(name for name, other in BANK_MODES.items() if BANKS[other] == BANKS[mode])


@cache
def banked_names(mode: int) -> tuple[tuple[int, str], ...]:
    """Return number and name of the registers R8 to R14 that ``mode`` sees."""
    high = "fiq" if mode == Mode.FIQ else "usr"
    own = bank_name(mode)
    return *((n, f"r{n}_{high}") for n in range(8, 13)), (13, f"sp_{own}"), (14, f"lr_{own}")


def overlay_banks(banks: Mapping[str, int], registers: Sequence[int], mode: int) -> dict[str, int]:
    """Return ``banks`` with the registers of the current mode in their places."""
    return dict(banks) | {name: registers[n] for n, name in banked_names(mode)}


def default_ram() -> bytes:
    return b"".join(default_word(gpa).to_bytes(4, "little") for gpa in range(0, RAM_SIZE, 4))


@dataclass(frozen=True, slots=True)
class Case:
    """A case. ``registers`` are R0 to R14 as the mode in ``cpsr`` sees them, and ``memory`` has words by GPA.

    The code runs from CODE for as many instructions as it has words, or fewer if control leaves it.
    """

    code: tuple[int, ...]
    registers: tuple[int, ...] = tuple(default_register(n) for n in range(15))
    cpsr: int = USER_CPSR
    spsr: int = USER_SPSR
    memory: tuple[tuple[int, int], ...] = ()
    sctlr: int = 0

    @property
    def mode(self) -> int:
        return self.cpsr & 0x1F

    @property
    def privileged(self) -> bool:
        return self.mode != Mode.USER

    @property
    def code_end(self) -> int:
        return CODE + 4 * len(self.code)

    @property
    def code_bytes(self) -> bytes:
        return b"".join(word.to_bytes(4, "little") for word in self.code)

    def banks(self) -> dict[str, int]:
        """Return the banked registers before the run, in the order in which outcomes show them."""
        return overlay_banks(DEFAULT_BANKS, self.registers, self.mode) | (
            {f"spsr_{bank_name(self.mode)}": self.spsr} if BANKS[self.mode] else {}
        )

    def ram(self) -> bytearray:
        """All of RAM before the run."""
        ram = bytearray(default_ram())
        for gpa, word in self.memory:
            ram[gpa : gpa + 4] = word.to_bytes(4, "little")
        ram[CODE : self.code_end] = self.code_bytes
        return ram

    def with_register(self, number: int, value: int) -> Case:
        registers = list(self.registers)
        registers[number] = value
        return replace(self, registers=tuple(registers))


@dataclass(frozen=True, slots=True)
class Outcome:
    """An outcome. ``end`` is "ok" or the exit: "undefined", "svc 0x5", "abort", ...

    ``fault`` is the access of an abort or alignment fault, "read 0x8000" or "write 0x8000"; it is empty if not known.
    ``registers`` are R0 to R15. ``banks`` has the banked registers by name, or None for user mode. After "thumb" only
    the PC counts, because our processor has no Thumb state and stops there.
    """

    end: str
    registers: tuple[int, ...]
    cpsr: int
    memory: bytes
    banks: dict[str, int] | None = None
    fault: str = ""

    @property
    def pc(self) -> int:
        return self.registers[15]

    def differences(self, other: Outcome) -> Iterator[str]:
        """Yield the differences as ``name: mine, other``."""
        if self.end != other.end:
            yield f"end: {self.end}, {other.end}"
        if self.fault != other.fault and self.fault and other.fault:
            yield f"fault: {self.fault}, {other.fault}"
        if self.end == other.end == "thumb":
            if self.pc != other.pc:
                yield f"r15: {self.pc:#x}, {other.pc:#x}"
            return
        names = (*(f"r{n}" for n in range(16)), "cpsr")
        for name, mine, theirs in zip(names, (*self.registers, self.cpsr), (*other.registers, other.cpsr), strict=True):
            if mine != theirs:
                yield f"{name}: {mine:#x}, {theirs:#x}"
        if self.banks is not None and other.banks is not None:
            for name, mine in self.banks.items():
                if mine != other.banks[name]:
                    yield f"{name}: {mine:#x}, {other.banks[name]:#x}"
        for gpa in changed_words(self.memory, other.memory):
            yield f"[{gpa:#x}]: {word_at(self.memory, gpa):#x}, {word_at(other.memory, gpa):#x}"


def word_at(memory: bytes | bytearray, gpa: int) -> int:
    return int.from_bytes(memory[gpa : gpa + 4], "little")


def changed_words(before: bytes | bytearray, after: bytes | bytearray) -> Iterator[int]:
    """Yield the GPAs of the words that differ."""
    if before != after:
        for gpa in range(0, RAM_SIZE, 4):
            if before[gpa : gpa + 4] != after[gpa : gpa + 4]:
                yield gpa
