"""What regions' optimisations find in an instruction: uops of it, of the right widths."""

from __future__ import annotations

from dbt.backend.flags import flag_effect
from dbt.backend.spans import list_access
from dbt.frontend.forming import is_sensitive
from isa.ir.queries import walk
from isa.ir.uop import Access, Uop
from tests.isa.words import FORMS, words_of


def test_what_optimisations_find_is_of_the_block() -> None:
    """The flags' values and the accesses of spans are uops that the instruction has, of the right widths."""
    for insn, form in FORMS:
        for word in words_of(insn, form):
            block = insn.record_word(word)
            if is_sensitive(block):
                continue
            for inner in (block, *(uop.body for uop in walk(block))):
                check_flag_effect(inner, set(walk(block)))
                check_list_access(inner)


def check_flag_effect(block: list[Uop], known: set[Uop]) -> None:
    for lazy in (False, True):
        effect = flag_effect(block, lazy)
        wide = [*(effect.difference or ()), *([effect.result] if effect.result is not None else ())]
        assert all(uop.width == 32 for uop in wide)
        assert all(uop.width == 1 for uop in effect.values.values())
        assert all(uop.number is not None or uop in known for uop in (*wide, *effect.values.values()))
        if not lazy:
            assert effect.values.keys() == {str(uop.attr) for uop in block if uop.op == "set"} & set("nzcv")


def check_list_access(block: list[Uop]) -> None:
    for loop in (uop for uop in block if uop.op == "for_each_bit"):
        if (found := list_access(loop)) is not None:
            access, first = found
            assert any(access is uop for uop in loop.body) and isinstance(access.attr, Access) and access.attr.size == 4
            assert first.width == 32 and not any(first is uop for uop in loop.body)
