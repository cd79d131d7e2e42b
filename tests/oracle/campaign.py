"""Runs cases in Unicorn and in the tiers, explains or reports what differs, and shrinks failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from isa.a32 import REGISTRY, Insn
from isa.spec import ALWAYS, Form
from isa.uop import Uop
from tests.oracle.case import CODE, USER_CPSR, USER_SPSR, Case, Outcome, default_register
from tests.oracle.differences import explanation, not_compared, not_in_blocks
from tests.oracle.generator import Generator
from tests.oracle.text import disassemble, format_case
from tests.oracle.tiers import TIERS, TierMachine
from tests.oracle.unpredictable import broken_state_rule
from tests.oracle.unicorn_machine import UnicornMachine

STATES_PER_WORD = 10
STATES_PER_BLOCK = 4
WORDS_PER_CONDITION = 4  # at least; and at least one per form


@dataclass(slots=True)
class Tally:
    """How many cases were run, and how many of them each known difference explains."""

    cases: int = 0
    explained: Counter[str] = field(default_factory=Counter)


class Mismatch(AssertionError):
    """A tier and Unicorn disagree. Shows one line that replays it."""

    def __init__(self, tier: str, case: Case, ours: Outcome, theirs: Outcome, seed: object) -> None:
        line = format_case(case, theirs)
        differences = "; ".join(ours.differences(theirs))
        super().__init__(
            f"\n{line}   // {disassemble(case.code)}"
            f"\n  seed {seed}; {tier}, unicorn: {differences}"
            f"\n  python tools/fuzz.py --replay '{line}'"
        )
        self.line = line


class Campaign:
    """One Unicorn and one machine of each tier, reused for every case."""

    def __init__(self, tiers: tuple[str, ...] = tuple(TIERS)) -> None:
        self.unicorn = UnicornMachine()
        self.tiers = [TierMachine(name) for name in tiers]
        self.tally = Tally()

    def check(self, case: Case, seed: object = None) -> None:
        """Compare one case; Mismatch, shrunk, if a difference is not explained."""
        theirs = self.unicorn.run(case)
        self.tally.cases += 1
        for machine in self.tiers:
            ours = machine.run(case)
            if (changed := changed_by_exit(case, ours)) is not None:
                raise Mismatch(machine.name, case, ours, changed, seed)
            if ours == theirs or not any(ours.differences(theirs)):
                continue
            known = explanation(case, ours, theirs)
            if known is None:
                small = shrink(case, lambda candidate: self._disagrees(machine, candidate))  # noqa: B023
                raise Mismatch(machine.name, small, machine.run(small), self.unicorn.run(small), seed)
            self.tally.explained[known] += 1

    def _disagrees(self, machine: TierMachine, case: Case) -> bool:
        ours, theirs = machine.run(case), self.unicorn.run(case)
        return any(ours.differences(theirs)) and explanation(case, ours, theirs) is None

    # -- what to run -------------------------------------------------------------------------------

    def check_insn(self, insn: Insn, seed: str) -> int:
        """Every form of one instruction under every condition. How many words could be drawn."""
        generator = Generator(seed)
        forms = list(insn.forms())
        words = 0
        for cond in range(ALWAYS + 1):
            for n in range(max(WORDS_PER_CONDITION, len(forms))):
                word = generator.word(insn, forms[n % len(forms)], cond)
                if word is None:
                    continue
                words += 1
                for _ in range(STATES_PER_WORD):
                    case = generator.case(*before(insn, word), word)
                    if broken_state_rule(insn, insn.pattern.decode(word), case) is None:
                        self.check(case, seed)
        return words

    def check_blocks(self, count: int, seed: str) -> None:
        """``count`` random blocks of 1 to 32 instructions, each in several states."""
        generator = Generator(seed)
        choices = straight_line_insns()
        for _ in range(count):
            case = generator.block(choices, generator.random.randint(1, 32))
            self.check(case, seed)
            for _ in range(STATES_PER_BLOCK - 1):
                other = generator.case()
                self.check(replace(case, registers=other.registers, cpsr=other.cpsr), seed)


def compared_insns() -> list[Insn]:
    return [insn for insn in REGISTRY if not not_compared(insn)]


@cache
def straight_line_insns() -> list[tuple[Insn, list[Form]]]:
    """Instructions, with those of their forms after which control goes on to the next one."""
    usable = [insn for insn in compared_insns() if not not_in_blocks(insn)]
    return [(insn, forms) for insn in usable if (forms := [f for f in insn.forms() if _goes_on(insn, f)])]


def _goes_on(insn: Insn, form: Form) -> bool:
    return not any(uop.op in ("branch", "exception", "callout") for uop in walk(insn.record_form(form).block))


def walk(block: list[Uop]) -> Iterator[Uop]:
    """Every uop, those in bodies too."""
    for uop in block:
        yield uop
        yield from walk(uop.body)


def before(insn: Insn, word: int) -> tuple[int, ...]:
    """What must precede the instruction so that it does what it is for: a LDREX for each STREX."""
    if not insn.name.startswith("STREX"):
        return ()
    fields = insn.pattern.decode(word)
    free = next(n for n in range(0, 12, 2) if not {n, n + 1} & {fields["rn"], fields["rt"], fields["rt"] + 1})
    load = next(other for other in REGISTRY if other.name == insn.name.replace("STREX", "LDREX"))
    return (load.pattern.encode({"cond": ALWAYS, "rn": fields["rn"], "rt": free}),)


def changed_by_exit(case: Case, ours: Outcome) -> Outcome | None:
    """What an instruction that did not complete should have left, if it left something else.

    Memory may have changed: the words that a multiple store stored before it faulted. After "thumb" and
    "unsupported" the guest is not continued, and its state does not count.
    """
    if len(case.code) > 1 or ours.end in ("ok", "thumb", "unsupported"):
        return None
    before = (*case.registers, CODE)
    banks = case.banks() if case.privileged else None
    untouched = Outcome(ours.end, before, case.cpsr, ours.memory, banks)
    return None if ours == untouched else untouched


# -- shrinking ---------------------------------------------------------------------------------


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A simpler case that fails too: fewer instructions, defaults and small numbers in the state."""
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(case):
            if candidate != case and fails(candidate):
                case, improved = candidate, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    for n in range(len(case.code)):
        if len(case.code) > 1:
            yield replace(case, code=case.code[:n] + case.code[n + 1 :])
    if case.memory:
        yield replace(case, memory=())
        for n in range(len(case.memory)):
            yield replace(case, memory=case.memory[:n] + case.memory[n + 1 :])
    if case.cpsr != USER_CPSR:
        yield replace(case, cpsr=USER_CPSR)
        yield replace(case, cpsr=case.cpsr & 0xFFFFFF00 | USER_CPSR)
        for bit in (31, 30, 29, 28, 27, 19, 18, 17, 16):
            yield replace(case, cpsr=case.cpsr & ~(1 << bit))
    if case.spsr != USER_SPSR:
        yield replace(case, spsr=USER_SPSR)
    for number, value in enumerate(case.registers):
        if value != default_register(number):
            yield case.with_register(number, default_register(number))
            if value > 1:
                yield case.with_register(number, 1 if value & 1 else 0)
                if value & value - 1 and value > 0xF:
                    yield case.with_register(number, value & value - 1)
