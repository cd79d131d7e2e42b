"""Predecoding: which operands of a form go where in an op, and how a word is recognised.

Everything a handler needs that depends on the instruction word alone is worked out once, when the
word is decoded, and kept in the op: the largest static expressions of the form's uops become
*slots* of the op's pool.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dbt.abi.layout import OP_POOL, OP_POOL_SIZE
from isa.arm.a32 import INDEX
from isa.ir.encoding import Field
from isa.ir.operations import PURE
from isa.ir.queries import walk
from isa.ir.registry import Form, Insn
from isa.ir.sensitivity import makes_callouts
from isa.ir.uop import Uop


@dataclass(frozen=True, slots=True)
class OperandSlot:
    """``size`` bytes at ``offset`` of the op hold the value of the static expression ``uop``."""

    uop: Uop
    offset: int
    size: int


def _slot_size(uop: Uop) -> int:
    if uop.op == "zext":
        return _slot_size(uop.args[0])
    if isinstance(uop.attr, Field) and uop.op == "field":
        return 1 if uop.attr.width <= 8 else 2 if uop.attr.width <= 16 else 4
    return 1 if uop.width <= 8 else uop.width // 8


def _static_arguments(block: list[Uop]) -> Iterator[Uop]:
    """Yield the static values that are arguments of dynamic uops. The handler reads them from the op."""
    for uop in walk(block):
        if not uop.static:
            yield from (arg for arg in uop.operands if arg.static and arg.op != "const")


def _leaves(uop: Uop) -> Iterator[Uop]:
    if uop.op == "field":
        yield uop
    for arg in uop.args:
        yield from _leaves(arg)


def allocate_slots(block: list[Uop], name: str, *, fields_only: bool = False) -> dict[str, OperandSlot]:
    """Return the slots of a block by their key (:func:`slot_key`). ValueError if they do not fit an op.

    With ``fields_only`` the slots hold the bare fields, and the handler computes the expressions.
    """
    values = {slot_key(uop): uop for uop in _static_arguments(block)}
    if fields_only:
        values = {slot_key(leaf): leaf for uop in values.values() for leaf in _leaves(uop)}
    slots: dict[str, OperandSlot] = {}
    offset = OP_POOL
    for key, uop in sorted(values.items(), key=lambda item: (-_slot_size(item[1]), item[0])):
        slots[key] = OperandSlot(uop, offset, _slot_size(uop))
        offset += _slot_size(uop)
    if offset > OP_POOL + OP_POOL_SIZE:
        raise ValueError(f"{name}: its operands do not fit the {OP_POOL_SIZE} bytes of an op")
    return slots


def slot_key(uop: Uop) -> str:
    """Return the key of a static expression. Expressions with the same key have the same value."""
    return f"{uop.width}:{uop!r}"


def pc_operands(block: list[Uop]) -> tuple[tuple[int, int], ...]:
    """Return when a register operand is R15, as pairs of the position of a 4-bit field and its value.

    A guard then stores the PC where the handler reads R15.
    """
    found: set[tuple[int, int]] = set()
    for uop in walk(block):
        if uop.op == "get_reg" and uop.args[0].static and uop.args[0].number is None:
            found |= set(_register_is_pc(uop.args[0]))
    return tuple(sorted(found))


def _register_is_pc(index: Uop) -> Iterator[tuple[int, int]]:
    leaves = {leaf.attr: leaf for leaf in _leaves(index)}
    ((register, leaf),) = leaves.items()
    assert isinstance(register, Field)
    if register.width != 4:
        raise ValueError(f"register number {index!r} does not come from a 4-bit field")
    for value in range(16):
        if value not in leaf.excluded and evaluate_static(index, value) == 15:
            yield register.lo, value


def evaluate_static(uop: Uop, value: int) -> int:
    """Return the value of a static expression of one field, for a value of that field."""
    if uop.op == "field":
        return value
    if uop.op == "const":
        assert uop.number is not None
        return uop.number
    numbers = [evaluate_static(arg, value) for arg in uop.args]
    operand_width = uop.args[1].width if uop.op == "select" else uop.args[0].width
    return PURE[uop.op](*numbers, operand_width) & ((1 << uop.width) - 1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the decoder: a form, how to recognise it, and what to do with the word.

    ``holes`` are pairs (mask, value) of bits that the word must not have; ``reserved`` are those that the decode index
    tells already. ``counts``: whether the handler counts its executions in the op (:data:`dbt.abi.layout.OP_CALLOUTS`).
    """

    name: str
    mask: int
    value: int
    holes: tuple[tuple[int, int], ...]
    reserved: tuple[tuple[int, int], ...]
    has_condition: bool
    handler: str
    fill: str
    pc_operands: tuple[tuple[int, int], ...] = ()
    since: int = 0
    counts: bool = False


#: The holes of a row, as the names of a mask and a value; NO_HOLE where there are fewer.
HOLES = (("hole1_mask", "hole1_value"), ("hole2_mask", "hole2_value"))
#: ``handler`` and ``fill`` are offsets in the image; ``pc_operands`` is how many of ``operands``, pairs of bytes
#: (position, value), there are; ``since`` is the architecture that has it first.
_ROW_FIELDS = {
    "mask": "I", "value": "I", "hole1_mask": "I", "hole1_value": "I", "hole2_mask": "I", "hole2_value": "I",
    "handler": "I", "fill": "I", "has_condition": "B", "pc_operands": "B", "since": "B", "unused": "x",
    "operands": "8B",
}  # fmt: skip
ROW = struct.Struct("<" + "".join(_ROW_FIELDS.values()))
#: Where each field of a row begins, in bytes.
ROW_OFFSETS = {
    name: struct.calcsize("<" + "".join(list(_ROW_FIELDS.values())[:number])) for number, name in enumerate(_ROW_FIELDS)
}
NO_HOLE = (0, 1)  # x & 0 == 1 never holds


def _merge(holes: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Merge pairs (mask, value) that differ in one bit into one pair without that bit."""
    left = set(holes)
    for bit in (1 << place for place in range(32)):
        for mask, value in sorted(left):
            pair = {(mask, value), (mask, value | bit)}
            if mask & bit and not value & bit and pair <= left:
                left = (left - pair) | {(mask & ~bit, value)}
    return tuple(sorted(left))


def candidate(insn: Insn, form: Form, handler: str, fill: str, block: list[Uop]) -> Candidate:
    pattern = insn.pattern
    mask, value = pattern.mask, pattern.value
    for name, number in form.fixed.items():
        mask |= pattern.fields[name].mask
        value |= pattern.fields[name].insert(number)
    holes = _merge(
        (pattern.fields[name].mask, pattern.fields[name].insert(number))
        for name, number in pattern.excluded
        if name != "cond" and name not in form.fixed
    )
    reserved = tuple((pattern.fields[n].mask, pattern.fields[n].insert(v)) for n, v in pattern.excluded if n == "cond")
    if len(holes) > 2:
        raise ValueError(f"{insn.name}: it excludes more than two groups of values besides the condition")
    operands = pc_operands(block)
    if len(operands) > 4:
        raise ValueError(f"{insn.name}: more than four register operands")
    has_condition = "cond" in pattern.fields and "cond" not in form.fixed
    name = f"{insn.name} {dict(form.fixed)}"
    counts = makes_callouts(block)
    return Candidate(name, mask, value, holes, reserved, has_condition, handler, fill, operands, insn.since, counts)


@dataclass(slots=True)
class DecodeTable:
    """The native decoder's table. ``index`` has, for each decode index, where in ``pool`` its list of rows begins.

    The rows of a list are tried in turn. Each list ends with row 0, which matches every word as undefined.
    """

    index: list[int] = field(default_factory=list)
    pool: list[int] = field(default_factory=list)


def build_decode_table(candidates: list[Candidate]) -> DecodeTable:
    """Build the table of the candidates. Row numbers are positions in ``candidates``; the first matches every word."""
    buckets: list[list[int]] = [[] for _ in range(INDEX.size)]
    for number, row in enumerate(candidates[1:], 1):
        for index in INDEX.values(row.mask, row.value, (*row.holes, *row.reserved)):
            buckets[index].append(number)
    table = DecodeTable()
    known: dict[tuple[int, ...], int] = {}
    for bucket in buckets:
        bucket.sort(key=lambda number: (-candidates[number].mask.bit_count(), number))
        key = (*bucket, 0)
        if key not in known:
            known[key] = len(table.pool)
            table.pool.extend(key)
        table.index.append(known[key])
    return table
