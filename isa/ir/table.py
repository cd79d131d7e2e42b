"""The table of legal uops: for each one its arguments and result, its effect, and the places where it is allowed.

This is the one place that defines it. :mod:`isa.ir.verifier` checks blocks of uops against it, :mod:`isa.ir.queries`
answers from it, and each translator of uops checks at import that it has a row for each (:func:`require_rows`).

A signature has the widths of the arguments, an arrow, and the width of the result, if there is one. A letter is any
width, and the same one wherever it occurs. ``narrower`` and ``wider`` are any width that compares so with the
argument's. ``loop`` is the enclosing ``for_each_bit``. ``...`` stands for any number of arguments like the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto

from isa.ir.callouts import Callout
from isa.ir.encoding import Field
from isa.ir.operations import PURE
from isa.ir.uop import Access, BranchKind


class Effect(Flag):
    """The effects of a uop besides its value. A pure uop has none: it may be executed again, later, or not at all."""

    PURE = 0
    READS_REGISTER = auto()
    WRITES_REGISTER = auto()
    READS_STATE = auto()
    WRITES_STATE = auto()
    READS_TEMP = auto()
    WRITES_TEMP = auto()
    READS_MEMORY = auto()
    WRITES_MEMORY = auto()
    #: The instruction may end here as if it had not begun: a fault, an exception, an exit to the hypervisor.
    MAY_LEAVE = auto()
    #: Its body is executed, or not, or several times.
    CONTROLS = auto()
    #: What follows in the block is not reached.
    ENDS_PATH = auto()


#: The effects after which an instruction cannot be done again from its beginning.
COMMITS = Effect.WRITES_REGISTER | Effect.WRITES_STATE


class Stage(Flag):
    """The kinds of blocks, by their origin."""

    WORD = auto()  # an instruction word, its condition included
    FORM = auto()  # a form of an instruction, its free fields symbolic
    ROUTINE = auto()
    STATIC = auto()  # an expression that is worked out when a word is decoded

    INSN = WORD | FORM
    CODE = WORD | FORM | ROUTINE
    ANY = WORD | FORM | ROUTINE | STATIC


class Position(Enum):
    """The place of a uop that is used as an argument."""

    BLOCK = "in a block, before what uses it"
    NOWHERE = "in no block: it is an argument only"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. ``attr`` is the type of the uop's attribute, or None if it has none."""

    signature: str
    effect: Effect = Effect.PURE
    stages: Stage = Stage.ANY
    attr: type | None = None
    position: Position = Position.BLOCK


def _pure(signature: str, *ops: str) -> dict[str, Row]:
    return {op: Row(signature) for op in ops}


_E, _S = Effect, Stage

#: Every uop.
UOPS: Mapping[str, Row] = {
    **_pure("a a -> a", "add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "ror", "udiv", "sdiv"),
    **_pure("a a -> 1", "eq", "ne", "ult", "slt"),
    **_pure("a -> a", "clz", "popcount", "bitreverse", "bswap"),
    **_pure("a -> wider", "zext", "sext"),
    **_pure("a -> narrower", "trunc"),
    **_pure("1 a a -> a", "select"),
    **_pure("a a 1 -> a", "adc"),
    **_pure("a a 1 -> 1", "adc_carry", "adc_overflow"),
    "const": Row("-> a", attr=int, position=Position.NOWHERE),
    "field": Row("-> 32", stages=_S.FORM | _S.STATIC, attr=Field, position=Position.NOWHERE),
    "get_reg": Row("32 -> 32", _E.READS_REGISTER, _S.CODE),
    "set_reg": Row("32 32 ->", _E.WRITES_REGISTER, _S.CODE),
    "pc": Row("-> 32", stages=_S.INSN, attr=int),
    "get": Row("-> 32", _E.READS_STATE, _S.CODE, str),
    "set": Row("32 ->", _E.WRITES_STATE, _S.CODE, str),
    "get_at": Row("32 -> 32", _E.READS_STATE, _S.CODE, str),
    "set_at": Row("32 32 ->", _E.WRITES_STATE, _S.CODE, str),
    "load": Row("32 -> 32", _E.READS_MEMORY | _E.MAY_LEAVE, _S.INSN, Access),
    "store": Row("32 32 ->", _E.WRITES_MEMORY | _E.MAY_LEAVE, _S.INSN, Access),
    "get_temp": Row("32 -> 32", _E.READS_TEMP, _S.CODE),
    "set_temp": Row("32 32 ->", _E.WRITES_TEMP, _S.CODE),
    "when": Row("1 ->", _E.CONTROLS, _S.CODE),
    "for_each_bit": Row("32 ->", _E.CONTROLS, _S.CODE),
    "bit_index": Row("loop -> 32", stages=_S.CODE, position=Position.NOWHERE),
    "bit_ordinal": Row("loop -> 32", stages=_S.CODE, position=Position.NOWHERE),
    "branch": Row("32 ->", _E.ENDS_PATH, _S.INSN, BranchKind),
    "exception": Row("32 ->", _E.MAY_LEAVE | _E.ENDS_PATH, _S.INSN, Enum),
    "callout": Row("32 ... ->", _E.PURE, _S.INSN, Callout),
    "callout_value": Row("32 ... -> 32", _E.MAY_LEAVE, _S.INSN, Callout),
    "param": Row("-> 32", stages=_S.ROUTINE, attr=str),
    "result": Row("64 ->", _E.ENDS_PATH, _S.ROUTINE),
    "in_ram": Row("32 -> 1", _E.READS_MEMORY, _S.ROUTINE),
    "load_physical": Row("32 -> 32", _E.READS_MEMORY, _S.ROUTINE),
}

if undefined := {op for op, row in UOPS.items() if row == Row(row.signature)} ^ PURE.keys():
    raise NotImplementedError(f"the table's pure uops and their definitions differ: {sorted(undefined)}")


def ops_of(stage: Stage) -> set[str]:
    """Return the uops, except for pure ones, that are allowed in a stage, or in one of several."""
    return {op for op, row in UOPS.items() if row.stages & stage and row.position is Position.BLOCK and op not in PURE}


def require_rows(what: str, rows: Collection[str], stage: Stage) -> None:
    """Raise NotImplementedError unless ``what``, a table with a row for each uop, has exactly the rows that a stage
    needs.

    Pure uops are not considered.
    """
    if wrong := ops_of(stage) ^ (set(rows) - PURE.keys()):
        raise NotImplementedError(f"{what}: rows that are missing, or for uops that cannot come: {sorted(wrong)}")
