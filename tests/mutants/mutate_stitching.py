"""Would the tests of the stitched tier notice? One thing at a time that is the tier's own is made wrong.

Stencils and stitcher are in the handlers' image, so each mutant has an image of its own. It has the instructions that
the programs use, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

from dbt import Machine
from dbt.backend import build, stencils, stitch_workspace, stitched_code, stitcher
from dbt.backend.image import Image
from dbt.backend.stencil_lowering import StencilLowering
from dbt.backend.stencil_table import StencilTable
from dbt.backend.stencils import Special, _SpecialBuilder
from dbt.backend.stitch_workspace import StitchedPage
from dbt.backend.unrolled import UnrolledLowering
from dbt.engine import native
from dbt.host.console import CaptureConsole
from isa.arm import a32
from isa.ir.registry import Insn
from tests.engine import test_stitched as tests
from tests.engine import test_unrolled
from tests.mutants.mutant import Mutant, is_noticed, limit_time
from tests.vm.programs import BASE

#: Seconds of the processor that the tests of a mutant take at most.
_TIMEOUT_S = 60


def _heads_count() -> None:
    """Heads of loops that count, beneath regions of which none is compiled."""
    with tests._looping() as machine, tests._looping(tier="threaded") as threaded:
        for fuel in (1000, 1, 2, 3, 4, 5, 100_000, 7, 40_000):
            machine.run(fuel=fuel)
            threaded.run(fuel=fuel)
            assert tests._same(machine, threaded)


def _accesses() -> None:
    for access in (
        "ldr r1, [r4], #4",
        "ldm r4, {r1, r2, r3}",
        "stm r4, {r0, r11}",
        "addne r0, r0, #1 ; ldrne r1, [r4]",
    ):
        tests.test_an_access_that_is_not_plain(access)


def _conditions() -> None:
    for condition in ("eq", "hi", "ls", "gt", "le", "vs"):
        tests.test_conditional_instructions_are_skipped(condition)


def _written() -> None:
    for patch in ("the next instruction", "its own block, behind", "another page", "one byte"):
        for often in (0, 7):
            tests.test_code_that_is_written_over(patch, often)


def _halfwords() -> None:
    """Instructions with an operand of 16 bits."""
    tests.check("""
        mov r11, #300
        loop: movw r1, #0xabcd ; movt r2, #0x1234 ; add r0, r0, r1 ; eor r3, r3, r2 ; subs r11, r11, #1 ; bne loop
        svc #0
    """)


def _becomes_hot() -> None:
    """A head that is executed often gets a region."""
    with Machine(1 << 20, jit="sync", console=CaptureConsole()) as machine:
        machine.load_bytes(tests.TWO_BLOCKS, BASE)
        machine.run(fuel=50_000_000)
        assert machine.retired["region"], "no region was made"


#: The tests that may notice a mutant. They raise if they do.
NOTICES: dict[str, Callable[[], object]] = {
    "budgets": tests.test_a_budget_may_end_at_any_instruction_of_warm_code,
    "page ends": tests.test_a_page_is_left_at_its_end,
    "conditions": _conditions,
    "accesses": _accesses,
    "written": _written,
    "straight line": tests.test_a_long_straight_line_is_cut_into_blocks,
    "no stencil": tests.test_instructions_without_stencils_are_executed_by_their_handlers,
    "seldom": tests.test_a_page_that_is_written_over_again_and_again_is_stitched_ever_more_seldom,
    "host writes": tests.test_the_hypervisors_writes_drop_stitched_code,
    "given up": tests.test_a_code_page_that_was_given_up_is_stitched_anew,
    "full arena": partial(tests.test_a_full_arena_is_emptied_during_the_run, tests.PAGE),
    "emptied": tests.test_every_op_has_its_handler_back_when_the_arena_is_emptied,
    "two machines": tests.test_two_machines_have_code_of_their_own,
    "heads": _heads_count,
    "hot": _becomes_hot,
    "halfwords": _halfwords,
    "unrolled": lambda: test_unrolled.test_transfers_of_any_number_of_registers_anywhere(0),
}


def passes(by: str) -> bool:
    """Run all tests, the one named first. Raises what they raise."""
    limit_time(_TIMEOUT_S)
    for name in sorted(NOTICES, key=lambda name: name != by):
        NOTICES[name]()
    return False


# -- images with a mutant --------------------------------------------------------------------------


def _few_insns() -> list[Insn]:
    """All instructions but those of coprocessors, and the media instructions from QADD to RBIT."""
    names = [insn.name for insn in a32.REGISTRY]
    first, last = names.index("QADD"), names.index("RBIT")
    few = a32.REGISTRY[:first] + a32.REGISTRY[last + 1 :]
    return [insn for insn in few if not insn.name.startswith(("MRC", "MCR", "MRRC", "MCRR"))]


@cache
def _right_stencils() -> StencilTable:
    a32.REGISTRY[:] = _few_insns()
    return build.build_stencils()


@cache
def _right_code() -> tuple[build.GeneratedCode, list[bytes]]:
    _right_stencils()
    code = build.generate_code()
    return code, [build.compile_module(text, 0) for text in code.texts]


def with_other_stencils() -> Image:
    """Make the stencils anew, as they are now."""
    code, compiled = _right_code()
    return build.link_code(code, compiled, build.build_stencils())


def with_other_stitcher() -> Image:
    """Make native code anew, as it is now."""
    made, code = _right_stencils(), build.generate_code()
    return build.link_code(code, [build.compile_module(text, 0) for text in code.texts], made)


def _renew_specials() -> None:
    """Let the table of special stencils have the functions that the module has now."""
    for special, make in list(stencils._SPECIALS.items()):
        measured = int(special) in range(stencils.MEASURED, 2 * stencils.MEASURED)
        if isinstance(make, partial):
            stencils._SPECIALS[special] = partial(getattr(stencils, make.func.__name__), **make.keywords)
        elif make.__name__ == "make":
            plain = Special(special - stencils.MEASURED * measured)
            stencils._SPECIALS[special] = stencils._head(plain, measured)
        else:
            stencils._SPECIALS[special] = getattr(stencils, make.__name__)


def use(make: Callable[[], Image], change: Callable[[], object]) -> None:
    """Let machines of this process that are made from now on use an image that is made after a change."""
    change()
    _renew_specials()
    image = make()

    pytest.MonkeyPatch().setattr(native, "load_image", lambda notice: image)
    native._SHARED.clear()


# -- the mutants -----------------------------------------------------------------------------------

STENCIL_MUTANTS = [
    # Budgets, and what is counted.
    Mutant(stencils, "_head", "icmp ult i64 %budget, {length}", "icmp ult i64 %budget, 1", "budgets"),
    Mutant(stencils, "_head", "store i32 {f.emit(f'sub i32 {before}, {insns}')}", "store i32 {before}", "hot"),
    Mutant(_SpecialBuilder, "give_back", "add i64 %budget", "sub i64 %budget", "budgets"),
    Mutant(_SpecialBuilder, "give_back", '"sub", count', '"add", count', "budgets"),
    # R15, conditions and other pages.
    Mutant(stencils, "_set_pc", "low.lower_pc(8)", "low.lower_pc(4)", "budgets"),
    Mutant(stencils, "condition_stencil", '"@skip"', '"@cont"', "conditions"),
    Mutant(stencils, "_cross", "store i32 {page}, ptr", "store i32 {here}, ptr", "page ends"),
    Mutant(stencils, "_cross", "icmp eq ptr {ops}, null", "icmp ne ptr {ops}, null", "page ends"),
    Mutant(StencilLowering, "_pc", "{ahead}", "{ahead + 4}", "budgets"),
    Mutant(StencilLowering, "fall_through", '"@cont"', '"@bail"', "budgets"),
    # Block transfers.
    Mutant(UnrolledLowering, "_passes", "loop_variables(loop), number)", "loop_variables(loop), 0)", "unrolled"),
    Mutant(UnrolledLowering, "_constant", "self._registers if", "self._registers + 1 if", "accesses"),
]

STITCHER_MUTANTS = [
    # Filling holes.
    Mutant(
        stitcher, "_patch", 'operand.load("i8").to("i32") << 2', '(operand.load("i8").to("i32") ^ 1) << 2', "budgets"
    ),
    Mutant(stitcher, "_patch", 'value.set(f["place"].to("i32"))', "value.set(0)", "budgets"),
    Mutant(stitcher, "_patch", 'value.set(operand.load("i16").to("i32"))', "value.set(0)", "halfwords"),
    Mutant(
        stitcher, "_emit_insn", "has_pc_operand(f, row, word).ne(0)", "has_pc_operand(f, row, word).eq(0)", "budgets"
    ),
    Mutant(stitcher, "_emit_insn", "skips.get().ugt(1)", "skips.get().ugt(2)", "conditions"),
    Mutant(stitcher, "_unrolled_or_not", "+ count.get() - 1)", "+ count.get())", "accesses"),
    Mutant(stitcher, "_unrolled_or_not", "f.store(number << 2,", "f.store(number << 3,", "accesses"),
    # Budgets.
    Mutant(stitcher, "_emit_head", "link_to(To.BAIL, first, length)", "link_to(To.BAIL, first, 0)", "budgets"),
    Mutant(
        stitcher, "_emit_head", 'w.argument(0, length.to("i32"))', 'w.argument(0, (length + 1).to("i32"))', "budgets"
    ),
    Mutant(stitcher, "_lay_out", "number, after - number)", "number, after - number - 1)", "accesses"),
    Mutant(stitcher, "_link_jumps", "to.eq(last_to.get())", "(to & 0xFF).eq(last_to.get() & 0xFF)", "accesses"),
    Mutant(stitcher, "_link_jumps", "w.argument(1, count)", "w.argument(1, count + 1)", "heads"),
    Mutant(stitcher, "_discover", "eq(MAX_BLOCK)", "eq(0)", "straight line"),
    # Links within a page, and out of it.
    Mutant(stitcher, "_emit_insn", "(distance >> 2)", "(distance >> 3)", "budgets"),
    Mutant(stitcher, "_link_jumps", "page.place(number)", "page.place(number + 1)", "budgets"),
    Mutant(stitcher, "_link_jumps", "place.get().eq(0) & w.holds(handler)", "place.get().eq(0)", "budgets"),
    Mutant(stitcher, "_lay_out", "after.ult(OPS_PER_PAGE)", "after.ult(0)", "budgets"),
    Mutant(stitcher, "_lay_out", 'f.value("i32", PAGE_SIZE)', 'f.value("i32", PAGE_SIZE + 4)', "page ends"),
    Mutant(stitcher, "_lay_out", "after.eq(OPS_PER_PAGE)", "after.eq(0)", "page ends"),
    Mutant(
        stitched_code,
        "_stitched_cross",
        '(word << OP_SHIFT).to("i32")',
        '(word << OP_SHIFT).to("i32") + 32',
        "page ends",
    ),
    Mutant(stitched_code, "_stitched_cross", 'f.load_native("page_gva") - before', "before", "page ends"),
    Mutant(stitched_code, "_arrive_by_edge", 'w.get("resets").eq(resets)', 'w.get("resets").uge(resets)', "full arena"),
    # What is found of a page, and what is kept of it.
    Mutant(stitcher, "_discover", 'row_number.to("i16"), page', '(row_number + 1).to("i16"), page', "budgets"),
    Mutant(stitcher, "_discover", ' | handler.eq(f.function("decode"))', "", "conditions"),
    Mutant(stitcher, "_stitch", 'f.store(f.value("i64", 0), w.array("marks").at(at))', "pass", "page ends"),
    Mutant(stitcher, "_stitch", 'f.store(f.value("i64", 0), w.array("places").at(at))', "pass", "page ends"),
    Mutant(stitch_workspace, "op_place", "(OPS_PER_PAGE - 1)", "(OPS_PER_PAGE - 2)", "budgets"),
    Mutant(StitchedPage, "op_number", "| number", "| number + 1", "accesses"),
    # Words that are covered, and code that is dropped.
    Mutant(stitcher, "_install", '.load("i8") | STITCHED, op', '.load("i8") | 0, op', "written"),
    Mutant(stitcher, "_install", "has(visited)", "has(int(Mark.LEADER))", "written"),
    Mutant(stitcher, "_install", 'w.increase("pages")', "pass", "emptied"),
    Mutant(
        stitcher, "_install", '(op.load("ptr").to("i64") - image)', '(op.load("ptr").to("i64") - image + 32)', "written"
    ),
    Mutant(stitched_code, "_unstitch_page", 'w.holds(op.load("ptr"))', '~w.holds(op.load("ptr"))', "written"),
    Mutant(stitched_code, "_stitched_word_changes", 'f.call("unstitch_page", f.cpu, page)', "pass", "written"),
    Mutant(stitched_code, "_stitched_word_changes", ".ult(MAX_STITCH_DELAY)", ".ult(0)", "seldom"),
    Mutant(stitched_code, "_drop_stitched", 'f.call("unstitch_page", f.cpu, page)', "pass", "full arena"),
]


def notices(mutant: Mutant, make: Callable[[], Image]) -> bool:
    mutant.require_source()
    return is_noticed(lambda: use(make, mutant.apply), lambda: passes(mutant.by))


@pytest.mark.parametrize("mutant", STENCIL_MUTANTS, ids=str)
def test_a_mutant_of_the_stencils_is_noticed(mutant: Mutant) -> None:
    _right_code()
    assert notices(mutant, with_other_stencils), "nothing notices this mutant"


@pytest.mark.parametrize("mutant", STITCHER_MUTANTS, ids=str)
def test_a_mutant_of_the_stitcher_is_noticed(mutant: Mutant) -> None:
    _right_stencils()
    assert notices(mutant, with_other_stitcher), "nothing notices this mutant"


@pytest.mark.parametrize("make", [with_other_stencils, with_other_stitcher])
def test_without_a_mutation_nothing_is_noticed(make: Callable[[], Image]) -> None:
    assert not is_noticed(lambda: use(make, lambda: None), lambda: passes(""))
