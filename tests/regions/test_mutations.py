"""Would the oracle notice? One row of the lowering table at a time is made wrong, for regions only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbt.backend.abi import SideExit
from dbt.backend.lower import LOWER, Lowering
from dbt.backend.regions import RegionLowering
from isa.spec import ALWAYS, Insn
from isa.uop import Uop
from tests.assembler import assemble
from tests.oracle.campaign import compared_insns, differ, walk
from tests.oracle.case import Case
from tests.oracle.generator import Generator
from tests.oracle.tiers import TierMachine
from tests.oracle.unpredictable import broken_state_rule
from tests.regions.machines import ENTRY, SmallMachine
from tests.regions.oracle import RegionMachine
from tests.regions.random_programs import ProgramWriter

WORDS = 40  # with the mutated operation, at most
STATES = 20

Row = Callable[[Lowering, Uop], str]


def negated(row: Row) -> Row:
    """The row, its result of one bit inverted."""
    return lambda low, uop: low.f.emit(f"xor i1 {row(low, uop)}, true")


def off_by_one(row: Row) -> Row:
    return lambda low, uop: low.f.emit(f"add i{uop.width} {row(low, uop)}, 1")


def or_equal(low: Lowering, uop: Uop) -> str:
    a, b = uop.args
    return low.f.emit(f"icmp sle i{a.width} {low.value(a)}, {low.value(b)}")


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
    "slt -> sle": ("slt", or_equal),
    "slt -> ult": ("slt", LOWER["ult"]),
    # Not here: ult, whose one use is min(byte, 63) as a distance, where <= is equal; popcount, always a constant.
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
            if word is not None and any(u.op == op for u in walk(insn.record_word(word).block)):
                found.append((insn, generator, word))
    cases: list[Case] = []
    for insn, generator, word in found[:: -(-len(found) // WORDS)] if found else []:
        for _ in range(STATES):
            case = generator.case(word)
            if broken_state_rule(insn, insn.pattern.decode(word), case) is None:
                cases.append(case)
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


# -- what is the region tier's own -------------------------------------------------------------

_exit, _retire, _store_state = RegionLowering._exit, RegionLowering._retire, RegionLowering._store_state


def keep_one_more(low: RegionLowering, way: str, target: str, given_back: int, reason: SideExit) -> None:
    _exit(low, way, target, given_back - 1 if given_back else 0, reason)


def retire_one_less(low: RegionLowering, count: int, pc: int) -> None:
    _retire(low, count - 1 if count > 1 else count, pc)


def forget_flags(low: RegionLowering) -> dict[str, str]:
    return {name: value for name, value in _store_state(low).items() if name != "v"}


def forget_register(low: RegionLowering) -> dict[str, str]:
    dirty, low._dirty = low._dirty, low._dirty[1:]
    try:
        return _store_state(low)
    finally:
        low._dirty = dirty


REGION_MUTANTS = {
    "keep one more": ("_exit", keep_one_more),
    "retire one less": ("_retire", retire_one_less),
    "forget V": ("_store_state", forget_flags),
    "forget a register": ("_store_state", forget_register),
}


@pytest.mark.parametrize("name", REGION_MUTANTS)
def test_random_programs_notice_a_region_mutant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, replacement = REGION_MUTANTS[name]
    monkeypatch.setattr(RegionLowering, method, replacement)
    for seed in range(30):
        code = assemble(ProgramWriter(seed).write(), ENTRY)
        machines = [SmallMachine(kind, code) for kind in ("threaded", "eager")]
        for count in (1, 5, 60, 200, 3, 1000, 3000):
            for machine in machines:
                machine.advance(count)
            if len({machine.digest() for machine in machines}) > 1:
                return
        machines[1].close()
    pytest.fail("30 programs notice nothing")


def test_every_row_has_a_mutant() -> None:
    # ult has one use, min(byte, 63) as a distance, where <= is equal; popcount is always of a constant.
    assert LOWER.keys() - {op for op, _ in MUTANTS.values()} == {"ult", "popcount"}
