"""Running cases in Unicorn and in the tiers: differences are explained or reported, and failures are shrunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from isa.arm.a32 import REGISTRY, Insn
from isa.arm.operands import ALWAYS
from isa.ir.queries import walk
from isa.ir.registry import Form
from tests.oracle.cases.case import CODE, Case, Outcome
from tests.oracle.cases.differences import explanation, not_compared, not_in_blocks, undefined_here
from tests.oracle.cases.generator import Generator
from tests.oracle.cases.shrink import shrink
from tests.oracle.cases.text import disassemble, format_case
from tests.oracle.cases.tier_machine import TIERS, TierMachine
from tests.oracle.cases.unicorn_machine import UnicornMachine
from tests.oracle.cases.unpredictable import broken_state_rule

STATES_PER_WORD = 8
STATES_PER_BLOCK = 4
WORDS_PER_CONDITION = 4  # at least; and at least one per form


@dataclass(slots=True)
class CaseCounts:
    """The number of cases that were run, and of those that each known difference explains."""

    cases: int = 0
    explained: Counter[str] = field(default_factory=Counter)


class Mismatch(AssertionError):
    """Raised if a tier and what it was compared with disagree. The message has one line that replays it."""

    def __init__(self, case: Case, tier: str, ours: Outcome, other: str, theirs: Outcome, seed: object) -> None:
        line = format_case(case, theirs)
        differences = "; ".join(ours.differences(theirs))
        super().__init__(
            f"\n{line}   // {disassemble(case.code)}"
            f"\n  seed {seed}; {tier}, {other}: {differences}"
            f"\n  python -m tests.oracle.fuzz --replay '{line}'"
        )
        self.line = line


class Campaign:
    """Compares one Unicorn and several machines of ours, which are reused for every case.

    ``tiers`` are the machines under test; by default there is one for each tier in TIERS.
    """

    def __init__(self, tiers: Sequence[TierMachine] | None = None) -> None:
        self.unicorn = UnicornMachine()
        self.tiers = [TierMachine(name) for name in TIERS] if tiers is None else list(tiers)
        self.counts = CaseCounts()

    def check(self, case: Case, seed: object = None) -> None:
        """Compare one case. Raises a shrunk Mismatch if a difference is not explained.

        If a difference is explained, the tiers must still agree with each other.
        """
        theirs = self.unicorn.run(case)
        self.counts.cases += 1
        first = None
        for machine in self.tiers:
            ours = machine.run(case)
            if (changed := changed_by_exit(case, ours)) is not None:
                raise Mismatch(case, machine.name, ours, "untouched", changed, seed)
            if differ(ours, theirs):
                known = explanation(case, ours, theirs)
                if known is None:
                    raise self._shrunk(case, machine, self.unicorn, seed)
                self.counts.explained[known] += 1
            if first is not None and differ(ours, first):
                raise self._shrunk(case, machine, self.tiers[0], seed)
            first = first or ours

    def _shrunk(self, case: Case, tier: TierMachine, other: TierMachine | UnicornMachine, seed: object) -> Mismatch:
        """Return the mismatch between the tier and another one, or Unicorn, on the simplest case that shows it."""

        def fails(candidate: Case) -> bool:
            ours, theirs = tier.run(candidate), other.run(candidate)
            return differ(ours, theirs) and (other in self.tiers or explanation(candidate, ours, theirs) is None)

        small = shrink(case, fails)
        return Mismatch(small, tier.name, tier.run(small), other.name, other.run(small), seed)

    # -- what to run -------------------------------------------------------------------------------

    def check_insn(self, insn: Insn, seed: str) -> int:
        """Check every form of one instruction under every condition. Return how many words could be drawn."""
        generator = Generator(seed)
        forms = list(insn.forms())
        words = 0
        for cond in range(ALWAYS + 1):
            for n in range(max(WORDS_PER_CONDITION, len(forms))):
                word = generator.word(insn, forms[n % len(forms)], cond)
                if word is None:
                    continue
                words += 1
                for case in defined_cases(generator, insn, word, STATES_PER_WORD):
                    self.check(case, seed)
        return words

    def check_blocks(self, count: int, seed: str) -> None:
        """Check ``count`` random blocks of 1 to 32 instructions, each in several states."""
        generator = Generator(seed)
        choices = straight_line_insns()
        for _ in range(count):
            case = generator.block(choices, generator.random.randint(1, 32))
            self.check(case, seed)
            for _ in range(STATES_PER_BLOCK - 1):
                other = generator.case()
                self.check(replace(case, registers=other.registers, cpsr=other.cpsr), seed)

    def check_undefined(self, count: int, seed: str) -> None:
        """Check that ``count`` words that no pattern matches, random or nearly an instruction, are undefined in Unicorn
        too.
        """
        generator = Generator(seed)
        insns = [(insn, list(insn.forms())) for insn in REGISTRY]
        while count:
            word = generator.undecodable(insns)
            if not undefined_here(word):
                self.check(generator.case(word), seed)
                count -= 1


def compared_insns() -> list[Insn]:
    return [insn for insn in REGISTRY if not not_compared(insn)]


@cache
def straight_line_insns() -> list[tuple[Insn, list[Form]]]:
    """Return instructions with those of their forms after which control continues at the next instruction."""
    usable = [insn for insn in compared_insns() if not not_in_blocks(insn)]
    return [(insn, forms) for insn in usable if (forms := [f for f in insn.forms() if _goes_on(insn, f)])]


def _goes_on(insn: Insn, form: Form) -> bool:
    return not any(uop.op in ("branch", "exception", "callout") for uop in walk(insn.record_form(form)))


def defined_cases(generator: Generator, insn: Insn, word: int, states: int) -> Iterator[Case]:
    """Yield cases of one instruction word in ``states`` random states, without those in which it is UNPREDICTABLE."""
    fields = insn.pattern.decode(word)
    for _ in range(states):
        case = generator.case(*_before(insn, word), word)
        if broken_state_rule(insn, fields, case) is None:
            yield case


def _before(insn: Insn, word: int) -> tuple[int, ...]:
    """Return the code that must precede the instruction so that it does its work: a LDREX for each STREX."""
    if not insn.name.startswith("STREX"):
        return ()
    fields = insn.pattern.decode(word)
    free = next(n for n in range(0, 12, 2) if not {n, n + 1} & {fields["rn"], fields["rt"], fields["rt"] + 1})
    load = next(other for other in REGISTRY if other.name == insn.name.replace("STREX", "LDREX"))
    return (load.pattern.encode({"cond": ALWAYS, "rn": fields["rn"], "rt": free}),)


def differ(ours: Outcome, theirs: Outcome) -> bool:
    return ours != theirs and any(ours.differences(theirs))


def changed_by_exit(case: Case, ours: Outcome) -> Outcome | None:
    """Return the outcome that an incomplete instruction should have had, if it changed something, else None.

    Memory may have changed: the words that a multiple store stored before it faulted. After "thumb" and
    "unsupported" the guest is not continued, and its state does not count.
    """
    if len(case.code) > 1 or ours.end in ("ok", "thumb", "unsupported"):
        return None
    before = (*case.registers, CODE)
    banks = case.banks() if case.privileged else None
    untouched = Outcome(ours.end, before, case.cpsr, ours.memory, banks, ours.fault)
    return None if ours == untouched else untouched
