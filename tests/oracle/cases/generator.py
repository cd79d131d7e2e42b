"""A generator of random and edge-case instruction words and states, from the bit patterns of the specification.

Everything comes from one seed. A word is drawn field by field. Combinations that the architecture leaves UNPREDICTABLE
are dropped by the rules of :mod:`tests.oracle.cases.unpredictable`. If an instruction accesses memory, its base
register is then changed so that the address is an interesting one. The address comes from our specification, but this
only aims the case: the oracle alone decides what is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import NoReturn

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.abi.exits import LeaveGuest
from dbt.engine.evaluator import compile_word
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from isa.arm.a32 import DECODER, Insn
from isa.arm.operands import ALWAYS, UNCONDITIONAL
from isa.arm.state import PSR_A, PSR_F, PSR_I, Mode
from isa.ir.registry import Form
from tests.oracle.cases.case import CODE, DATA, RAM_SIZE, WINDOW, Case, default_ram
from tests.oracle.cases.unpredictable import REGISTER_FIELDS, broken_rule

_EDGES = (
    0, 1, 2, 3, 4, 7, 8, 0x1F, 0x20, 0x21, 0x3F, 0x40, 0x7F, 0x80, 0xFF, 0x100, 0x101, 0x7FFF, 0x8000, 0xFFFF,
    0x10000, 0x7FFF7FFF, 0x7FFF8000, 0x80007FFF, 0x80008000, 0x80808080, 0x7F7F7F7F, 0xFF00FF00, 0x00FF00FF,
    0x3FFFFFFF, 0x40000000, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xAAAAAAAA, 0x55555555,
    0xC0000000, 0xFFFF0000, 0xFFFF8000, 0xFFFFFF80, 0xFFFFFFFE, 0xFFFFFFFF,
)  # fmt: skip
_MODES = (Mode.USER, Mode.USER, Mode.USER, Mode.SYSTEM, Mode.SUPERVISOR, Mode.SUPERVISOR, Mode.FIQ, Mode.IRQ)
_ENTRY_STATE = CpuState().words.tolist()
_CLEAN_RAM = default_ram()
_PICKS = 4096
ALWAYS_NOP = 0xE1A00000  # MOV R0, R0
_MOVW, _MOVT = 0xE3000000, 0xE3400000


#: Flags N Z C V with which each condition holds.
_FLAGS_FOR = {
    0: (0, 1, 0, 0), 1: (0, 0, 0, 0), 2: (0, 0, 1, 0), 3: (0, 0, 0, 0), 4: (1, 0, 0, 0), 5: (0, 0, 0, 0),
    6: (0, 0, 0, 1), 7: (0, 0, 0, 0), 8: (0, 0, 1, 0), 9: (0, 1, 0, 0), 10: (0, 0, 0, 0), 11: (1, 0, 0, 0),
    12: (0, 0, 0, 0), 13: (0, 1, 0, 0), 14: (0, 0, 0, 0),
}  # fmt: skip


_ARCHITECTURE = 8  # all of it


class _Aimed(Exception):
    """Raised to end an execution, with the first address that an instruction accesses."""


def _report_address(gva: int, *args: object) -> NoReturn:
    raise _Aimed(gva)


class _NoCallouts:
    def __getattr__(self, name: str) -> NoReturn:
        raise _Aimed(None)


class Generator:
    """Draws words and cases. Equal seeds draw equal ones."""

    def __init__(self, seed: int | str) -> None:
        self.random = random = Random(seed)
        self._memory = GuestMemory(Ram(RAM_SIZE))
        third = _PICKS // 3
        self._values = [
            *random.choices(_EDGES, k=third),
            *(random.getrandbits(32) for _ in range(third)),
            *(random.getrandbits(random.randrange(1, 32)) << random.randrange(32) & 0xFFFFFFFF for _ in range(third)),
        ]

    def value(self) -> int:
        return self.random.choice(self._values)

    # -- words -------------------------------------------------------------------------------------

    def word(self, insn: Insn, form: Form, cond: int) -> int | None:
        """Return a word of this form that no rule calls UNPREDICTABLE, or None if a hundred tries find none."""
        for _ in range(100):
            fields = self._fields(insn, form, cond)
            word = insn.pattern.encode(fields)
            if insn.pattern.matches(word) and broken_rule(insn, fields) is None:
                return word
        return None

    def _fields(self, insn: Insn, form: Form, cond: int) -> dict[str, int]:
        fields: dict[str, int] = {}
        used: list[int] = []
        for name, field in insn.pattern.fields.items():
            if name == "cond":
                value = cond
            elif name in form.fixed:
                value = form.fixed[name]
            elif name in REGISTER_FIELDS:
                value = self._register(used)
            else:
                value = self._field(field.width)
            if name in REGISTER_FIELDS:
                used.append(value)
            if (name, value) in form.excluded:
                value ^= 1
            fields[name] = value
        return fields

    def _register(self, used: list[int]) -> int:
        choice = self.random.random()
        if choice < 0.1 and used:
            return self.random.choice(used)
        return self.random.randrange(13 if choice < 0.8 else 16)

    def _field(self, width: int) -> int:
        top = (1 << width) - 1
        if self.random.random() < 0.7:
            return self.random.getrandbits(width)
        return self.random.choice((0, 1, top, top - 1, 1 << width - 1, top >> 1)) & top

    def undecodable(self, insns: Sequence[tuple[Insn, list[Form]]]) -> int:
        """Return a word that no pattern matches: random, or an instruction with one or two bits changed.

        Its condition is AL, if it has one: an undefined word whose condition fails may be either.
        """
        random = self.random
        while True:
            word = random.getrandbits(32)
            if random.random() < 0.7:
                insn, forms = random.choice(insns)
                word = self.word(insn, random.choice(forms), ALWAYS) or word
                word ^= 1 << random.randrange(32) | 1 << random.randrange(32)
            if word >> 28 != UNCONDITIONAL:
                word = word & 0x0FFFFFFF | ALWAYS << 28
            if DECODER.decode(word) is None:
                return word

    # -- states ------------------------------------------------------------------------------------

    def case(self, *code: int) -> Case:
        """Return a random state for the code, with every load and store aimed if possible."""
        random = self.random
        registers = random.choices(self._values, k=15)
        case = Case(code, tuple(registers), self._psr(), self._psr())
        for word in code:
            case = self._aim(case, word)
        return case

    def _psr(self) -> int:
        """Return a CPSR or SPSR: any flags and masks, and a mode that there is."""
        random = self.random
        return random.getrandbits(32) & (0xF80F0000 | PSR_A | PSR_I | PSR_F) | random.choice(_MODES)

    def _aim(self, case: Case, word: int) -> Case:
        """Return the case with the base register of ``word`` set so that it accesses an interesting address."""
        insn = DECODER.decode(word)
        if insn is None or "rn" not in insn.pattern.fields:
            return case
        base = insn.pattern.fields["rn"].extract(word)
        address = first_address(word, case.registers)
        if address is None or base == 15:
            return case
        target = self._address()
        aimed = case.with_register(base, (case.registers[base] + target - address) & 0xFFFFFFFF)
        if insn.name != "RFE" and self.random.random() < 0.7:
            return aimed
        values = (self._psr() if insn.name == "RFE" else self.value() for _ in range(5))
        words = {(target + 4 * n) & 0xFFFFFFFC: value for n, value in zip(range(-2, 3), values, strict=True)}
        return replace(aimed, memory=tuple((gpa, w) for gpa, w in words.items() if gpa < CODE))

    def _address(self) -> int:
        random = self.random
        choice = random.random()
        near = DATA + random.randrange(-WINDOW, WINDOW)
        if choice < 0.5:
            return near & ~7 if choice < 0.25 else near & ~3
        if choice < 0.7:
            return near
        if choice < 0.88:
            return DATA + random.randrange(-8, 8)  # crossing a page
        if choice < 0.96:
            return RAM_SIZE + random.randrange(-8, 8)  # crossing the end of RAM
        return self.value()

    # -- blocks ------------------------------------------------------------------------------------

    def block(self, choices: Sequence[tuple[Insn, list[Form]]], length: int) -> Case:
        """Return straight-line code of at most ``length`` instructions in a random state.

        The code is executed while it is drawn. If an instruction's address would be outside of RAM, a MOVW and MOVT of
        its base register precede it. Most of the instructions that fault are left out.
        """
        random = self.random
        start = self.case(ALWAYS_NOP)
        live = [*start.registers, CODE, *(start.cpsr >> bit & 1 for bit in (31, 30, 29, 28, 27))]
        live += [start.cpsr >> 16 & 15, *_ENTRY_STATE[len(live) + 1 :]]
        self._memory.write_ram(Gpa(0), _CLEAN_RAM)
        code: list[int] = []
        while len(code) < length:
            insn, forms = random.choice(choices)
            cond = ALWAYS if random.random() < 0.6 else random.randrange(14)
            word = self.word(insn, random.choice(forms), cond)
            if word is None:
                continue
            trial = [*self._set_base(word, live, CODE + 4 * len(code)), word]
            if len(code) + len(trial) > length:
                if code:
                    break
                continue
            if self._execute(trial, live, CODE + 4 * len(code)) or random.random() < 0.1:
                code += trial
        return replace(start, code=tuple(code))

    def _set_base(self, word: int, live: list[int], pc: int) -> list[int]:
        """Return the code that must precede ``word`` so that its address is interesting."""
        insn = DECODER.decode(word)
        base = insn.pattern.fields["rn"].extract(word) if insn and "rn" in insn.pattern.fields else 15
        address = first_address(word, tuple(live[:15]), pc)
        if address is None or base == 15:
            return []
        value = (live[base] + self._address() - address) & 0xFFFFFFFF
        low, high = value & 0xFFFF, value >> 16
        return [
            _MOVW | low >> 12 << 16 | base << 12 | low & 0xFFF,
            _MOVT | high >> 12 << 16 | base << 12 | high & 0xFFF,
        ]

    def _execute(self, code: list[int], live: list[int], pc: int) -> bool:
        """Return True if the code runs through; ``live`` is then the state behind it."""
        state = list(live)
        try:
            for n, word in enumerate(code):
                compile_word(word, _ARCHITECTURE)(
                    state, state, self._memory.load, self._memory.store, _NoCallouts(), pc + 4 * n
                )
        except (LeaveGuest, _Aimed):
            return False
        live[:] = state
        return True


def first_address(word: int, registers: tuple[int, ...], pc: int = CODE) -> int | None:
    """Return the first GVA that the instruction would access if its condition held; None if it accesses none."""
    scratch = [*registers, 0, *_FLAGS_FOR.get(word >> 28, _FLAGS_FOR[ALWAYS]), *_ENTRY_STATE[20:]]
    try:
        compile_word(word, _ARCHITECTURE)(scratch, scratch, _report_address, _report_address, _NoCallouts(), pc)
    except _Aimed as aimed:
        address: int | None = aimed.args[0]
        return address
    except LeaveGuest:
        pass
    return None
