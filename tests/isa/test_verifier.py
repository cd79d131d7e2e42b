"""The verifier: everything that is recorded is legal, and what is not is refused with the rule that it breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isa.arm.architecture import CALLOUTS, ROUTINES
from isa.arm.recorder import Recorder
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.encoding import Field
from isa.ir.queries import branches_of, ends_path, loop_variables, registers_written, walk, words_written
from isa.ir.routines import Routine
from isa.ir.table import Stage, ops_of, require_rows
from isa.ir.uop import Access, BranchKind, Uop
from isa.ir.verifier import VerifierError, verify
from tests.isa.words import FORMS, words_of


def test_every_form_is_legal() -> None:
    for insn, form in FORMS:
        verify(insn.record_form(form), Stage.FORM, LAYOUT)


def test_random_words_are_legal() -> None:
    for insn, form in FORMS:
        for word in words_of(insn, form):
            verify(insn.record_word(word), Stage.WORD, LAYOUT)


@pytest.mark.parametrize("routine", ROUTINES.values(), ids=lambda routine: routine.name)
def test_every_routine_is_legal(routine: Routine) -> None:
    verify(routine.block(), Stage.ROUTINE, LAYOUT)


# -- what is refused ---------------------------------------------------------------------------


def emit(op: str, width: int, *args: int | Uop, attr: object = None) -> Callable[[Recorder], None]:
    """Record a uop past the recorder's own checks; numbers become constants of 32 bits."""

    def record(u: Recorder) -> None:
        u.emit(op, width, *(u.const(arg) if isinstance(arg, int) else arg for arg in args), attr=attr)

    return record


def use_outside(u: Recorder) -> None:
    with u.when(u.z):
        value = u.reg[0]
    u.reg[1] = value


def use_of_another_loop(u: Recorder) -> None:
    with u.for_each_bit(u.reg[0]) as (number, _):
        pass
    u.reg[1] = number


def load_in_second_round(u: Recorder) -> None:
    with u.for_each_bit(u.reg[0]):
        u.load(u.reg[1], 4)
        u.reg[1] = 0


def after_branch(u: Recorder) -> None:
    emit("branch", 0, 4, attr=BranchKind.JUMP)(u)
    u.reg[1] = 0


def exception_after_write(u: Recorder) -> None:
    u.reg[0] = 1
    u.exception(InsnException.UNDEFINED)


def store_after_conditional_write(u: Recorder) -> None:
    with u.when(u.z):
        u.set("exclusive", 0)
    u.emit("store", 0, u.reg[0], u.reg[1], attr=Access(4))


def leave_after_write(u: Recorder) -> None:
    u.reg[0] = 1
    u.emit("callout", 0, u.const(0), attr=CALLOUTS["unsupported"])


def body_of_a_pure_uop(u: Recorder) -> None:
    value = u.reg[0] + 1
    value.body.append(value)


WRONG: dict[str, tuple[Callable[[Recorder], None], Stage, str]] = {
    "no such uop": (emit("nand", 32, 1, 2), Stage.WORD, "there is no uop nand"),
    "too few arguments": (emit("set_reg", 0, 1), Stage.WORD, "has 1 arguments, not 2"),
    "too many arguments": (emit("get_reg", 32, 1, 2), Stage.WORD, "has 2 arguments, not 1"),
    "width of an argument": (lambda u: emit("set_reg", 0, 1, u.z)(u), Stage.WORD, "is 1 bits wide"),
    "widths that differ": (lambda u: emit("add", 32, 1, u.reg[0].zext(64))(u), Stage.WORD, "is 64 bits wide"),
    "width of the result": (emit("eq", 32, 1, 2), Stage.WORD, "is 32 bits wide"),
    "extension to less": (emit("zext", 16, 1), Stage.WORD, "is 16 bits wide"),
    "truncation to more": (emit("trunc", 64, 1), Stage.WORD, "is 64 bits wide"),
    "odd width": (emit("trunc", 20, 1), Stage.WORD, "no values of 20 bits"),
    "attribute": (emit("load", 32, 1, attr=4), Stage.WORD, "attribute is not Access"),
    "attribute too many": (emit("get_reg", 32, 1, attr="x"), Stage.WORD, "attribute is not None"),
    "field of a word": (lambda u: emit("set_reg", 0, 1, u.field(Field("rd", 12, 4)))(u), Stage.WORD, "in a WORD"),
    "load in a routine": (emit("load", 32, 1, attr=Access(4)), Stage.ROUTINE, "in a ROUTINE"),
    "branch in a routine": (emit("branch", 0, 1, attr=BranchKind.JUMP), Stage.ROUTINE, "in a ROUTINE"),
    "result of an instruction": (lambda u: u.result(u.reg[0].zext(64)), Stage.FORM, "in a FORM"),
    "state word": (emit("get", 32, attr="cpsr"), Stage.WORD, "no word of that name"),
    "array as a word": (emit("get", 32, attr="spsr"), Stage.WORD, "this is an array"),
    "element": (emit("get_at", 32, 6, attr="spsr"), Stage.WORD, "has 6 elements"),
    "value of a body": (use_outside, Stage.WORD, "not known there"),
    "variable of a loop": (use_of_another_loop, Stage.WORD, "not known there"),
    "end of the path": (after_branch, Stage.WORD, "never reached"),
    "load after a write": (load_in_second_round, Stage.WORD, "may leave after"),
    "store after a write": (store_after_conditional_write, Stage.WORD, "may leave after"),
    "exception after a write": (exception_after_write, Stage.WORD, "may leave after"),
    "exit after a write": (leave_after_write, Stage.WORD, "may leave after"),
    "body": (body_of_a_pure_uop, Stage.WORD, "has a body"),
    "constant in a block": (lambda u: u.block.append(u.const(1)), Stage.WORD, "is an argument only"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    record, stage, message = WRONG[name]
    u = Recorder()
    record(u)
    with pytest.raises(VerifierError, match=message):
        verify(u.block, stage, LAYOUT)


def test_a_table_that_misses_a_row_or_has_one_too_many_is_refused() -> None:
    routines = ops_of(Stage.ROUTINE)
    require_rows("complete", routines, Stage.ROUTINE)
    with pytest.raises(NotImplementedError, match=r"short.*in_ram"):
        require_rows("short", routines - {"in_ram"}, Stage.ROUTINE)
    with pytest.raises(NotImplementedError, match=r"long.*branch"):
        require_rows("long", routines | {"branch"}, Stage.ROUTINE)


# -- the queries -------------------------------------------------------------------------------


def test_queries() -> None:
    u = Recorder()
    with u.when(u.z):
        u.n = u.c
        with u.for_each_bit(u.const(0b1010)) as (number, ordinal):
            u.reg[number] = u.temp[ordinal]
        u.reg[5] = 1
        u.branch(u.reg[2])
    assert registers_written(u.block) == {1, 3, 5}
    assert words_written(u.block) == {"n"}
    assert [uop.op for uop in branches_of(u.block)] == ["branch"]
    loop = next(uop for uop in walk(u.block) if uop.op == "for_each_bit")
    assert loop_variables(loop) == {number, ordinal}
    ops = [uop.op for uop in walk(u.block, into_loops=False)]
    assert "set_reg" in ops and "get_temp" not in ops and "get_temp" in [uop.op for uop in walk(u.block)]
    assert not ends_path(u.block) and ends_path(u.block[-1].body)


def test_what_follows_the_end_of_a_path_is_not_recorded() -> None:
    u = Recorder()
    with u.when(u.const(1, 1)):
        u.callout("enter_thumb", 1)
    u.branch(u.reg[0])
    assert [uop.op for uop in u.block] == ["callout"]


def test_a_register_of_unknown_number_may_be_any() -> None:
    u = Recorder()
    u.reg[u.field(Field("rd", 12, 4))] = 1
    assert registers_written(u.block) == set(range(16))


def test_a_callout_that_leaves_ends_the_path() -> None:
    u = Recorder()
    u.callout("enter_thumb", 1)
    assert ends_path(u.block)
