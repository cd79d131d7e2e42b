"""Would the oracle notice? One row of the lowering table at a time is made wrong, for regions only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbt.backend.lower import LOWER, Lowering
from isa.arm.operands import ALWAYS
from isa.ir.queries import walk
from isa.ir.registry import Insn
from isa.ir.uop import Uop
from tests.oracle.cases import (
    Case,
    Generator,
    RegionMachine,
    TierMachine,
    compared_insns,
    defined_cases,
    differ,
)

WORDS = 40  # with the mutated operation, at most
STATES = 20

Row = Callable[[Lowering, Uop], str]


def negated(row: Row) -> Row:
    """The row, its result of one bit inverted."""
    return lambda low, uop: low.f.emit(f"xor i1 {row(low, uop)}, true")


def off_by_one(row: Row) -> Row:
    return lambda low, uop: low.f.emit(f"add i{uop.width} {row(low, uop)}, 1")


def or_equal(comparison: str) -> Row:
    return lambda low, uop: low.f.emit(
        f"icmp {comparison} i{uop.args[0].width} {low.value(uop.args[0])}, {low.value(uop.args[1])}"
    )


def swapped_select(low: Lowering, uop: Uop) -> str:
    c, a, b = uop.args
    return low.f.emit(f"select i1 {low.value(c)}, i{a.width} {low.value(b)}, i{b.width} {low.value(a)}")


MUTANTS: dict[str, tuple[str, Row]] = {
    "add -> sub": ("add", LOWER["sub"]),
    "sub -> add": ("sub", LOWER["add"]),
    "mul -> add": ("mul", LOWER["add"]),
    "and -> or": ("and", LOWER["or"]),
    "or -> and": ("or", LOWER["and"]),
    "xor -> or": ("xor", LOWER["or"]),
    "shl -> lshr": ("shl", LOWER["lshr"]),
    "lshr -> ashr": ("lshr", LOWER["ashr"]),
    "ashr -> lshr": ("ashr", LOWER["lshr"]),
    "slt -> sle": ("slt", or_equal("sle")),
    "slt -> ult": ("slt", LOWER["ult"]),
    "ult -> ule": ("ult", or_equal("ule")),
    # Not here: popcount, which is always of a constant.
    "zext -> sext": ("zext", LOWER["sext"]),
    "sext -> zext": ("sext", LOWER["zext"]),
    "udiv -> sdiv": ("udiv", LOWER["sdiv"]),
    "sdiv -> udiv": ("sdiv", LOWER["udiv"]),
    "bitreverse -> bswap": ("bitreverse", LOWER["bswap"]),
    "bswap -> bitreverse": ("bswap", LOWER["bitreverse"]),
    "select swapped": ("select", swapped_select),
    **{f"{op} negated": (op, negated(LOWER[op])) for op in ("eq", "ne", "adc_carry", "adc_overflow")},
    **{f"{op} + 1": (op, off_by_one(LOWER[op])) for op in ("adc", "clz", "trunc", "ror")},
}


def cases_with(op: str) -> list[Case]:
    """Cases of instructions whose semantics have the operation, from all over the instruction set."""
    found: list[tuple[Insn, Generator, int]] = []
    for insn in compared_insns():
        generator = Generator(f"mutations/{insn.name}")
        for form in insn.forms():
            word = generator.word(insn, form, ALWAYS)
            if word is not None and any(u.op == op for u in walk(insn.record_word(word))):
                found.append((insn, generator, word))
    cases: list[Case] = []
    for insn, generator, word in found[:: -(-len(found) // WORDS)] if found else []:
        cases += defined_cases(generator, insn, word, STATES)
    return cases


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, row = MUTANTS[name]
    cases = cases_with(op)
    assert cases, f"no instruction is left with {op} when its word is known"
    reference, machine = TierMachine("reference"), RegionMachine()
    monkeypatch.setitem(LOWER, op, row)
    machine.tier.prepare({case.code: None for case in cases})
    assert any(differ(machine.run(case), reference.run(case)) for case in cases), f"{len(cases)} cases notice nothing"


def test_every_row_has_a_mutant() -> None:
    assert LOWER.keys() - {op for op, _ in MUTANTS.values()} == {"popcount"}
