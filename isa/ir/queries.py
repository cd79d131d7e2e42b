"""Questions about a block of uops. The answers follow from :mod:`isa.ir.table`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isa.ir.callouts import Callout
from isa.ir.table import UOPS, Effect
from isa.ir.uop import Uop

REGISTERS = 16


def walk(block: Iterable[Uop], *, into_loops: bool = True) -> Iterator[Uop]:
    """Yield all uops of a block, each before those of its body. ``into_loops=False`` omits the bodies of loops."""
    for uop in block:
        yield uop
        if uop.body and (into_loops or uop.op != "for_each_bit"):
            yield from walk(uop.body, into_loops=into_loops)


def effect_of(uop: Uop) -> Effect:
    """Return the effect of one uop, without that of its body."""
    effect = UOPS[uop.op].effect
    if isinstance(uop.attr, Callout) and uop.attr.definition is None:
        if uop.attr.leaves:
            effect |= Effect.MAY_LEAVE | Effect.ENDS_PATH
        elif uop.attr.may_leave:
            effect |= Effect.MAY_LEAVE
    return effect


def ends_path(block: Iterable[Uop]) -> bool:
    """Return True if control never reaches the end of a block."""
    return any(Effect.ENDS_PATH in effect_of(uop) for uop in block)


def branches_of(block: Iterable[Uop]) -> tuple[Uop, ...]:
    """Return the branch uops of an instruction."""
    return tuple(uop for uop in walk(block) if uop.op == "branch")


def registers_written(block: Iterable[Uop]) -> set[int]:
    """Return the numbers of the registers that a block may write: all if it writes one whose number is not known."""
    return {
        number
        for uop in walk(block)
        if Effect.WRITES_REGISTER in UOPS[uop.op].effect
        for number in _possible_numbers(uop.args[0])
    }


def registers_loaded(block: Iterable[Uop]) -> set[int]:
    """Return the numbers of the registers that a block may set to a value that it has loaded from memory."""
    return {
        number
        for uop in walk(block)
        if Effect.WRITES_REGISTER in UOPS[uop.op].effect and _is_loaded(uop.args[-1])
        for number in _possible_numbers(uop.args[0])
    }


def _is_loaded(value: Uop) -> bool:
    """Return True if a value depends on memory. What a block transfer loads goes through the scratch words."""
    reads = Effect.READS_MEMORY | Effect.READS_TEMP
    return bool(UOPS[value.op].effect & reads) or any(map(_is_loaded, value.args))


def registers_moved(block: Iterable[Uop]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of registers that a block may set to the value of another one, and of the other one."""
    for uop in walk(block):
        if Effect.WRITES_REGISTER in UOPS[uop.op].effect and uop.args[-1].op == "get_reg":
            to, source = uop.args[0].number, uop.args[-1].args[0].number
            if to is not None and source is not None:
                yield to, source


def registers_chosen(block: Iterable[Uop]) -> set[int]:
    """Return the numbers of the registers that a block sets to the value of another one if a condition holds."""
    return {to for uop in block if uop.op == "when" for to, _ in registers_moved(uop.body)}


def _possible_numbers(number: Uop) -> Iterable[int]:
    if number.number is not None:
        return (number.number,)
    mask = number.args[0].args[0].number if number.op == "bit_index" else None
    return range(REGISTERS) if mask is None else (bit for bit in range(REGISTERS) if mask >> bit & 1)


def words_written(block: Iterable[Uop]) -> set[str]:
    """Return the names of the words and arrays of the state that a block may write."""
    return {str(uop.attr) for uop in walk(block) if Effect.WRITES_STATE in UOPS[uop.op].effect}


def loop_variables(loop: Uop) -> set[Uop]:
    """Return the ``bit_index`` and ``bit_ordinal`` uops of a loop that its body uses. They are not in any block."""
    variables = ("bit_index", "bit_ordinal")
    return {arg for uop in walk(loop.body) for arg in uop.args if arg.op in variables and arg.args[0] is loop}
