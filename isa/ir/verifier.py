"""The verifier, which checks that a block of uops obeys :mod:`isa.ir.table` at its stage."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from isa.ir.layout import StateLayout
from isa.ir.queries import effect_of
from isa.ir.table import COMMITS, UOPS, Effect, Position, Row, Stage
from isa.ir.uop import SemanticsError, Uop

_WIDTHS = frozenset({1, 8, 16, 32, 64})
_ARRAY_OPS = {"get": False, "set": False, "get_at": True, "set_at": True}


class VerifierError(SemanticsError):
    """Raised for a block of uops that is not legal. The message names the uop and the rule."""


def verify(block: list[Uop], stage: Stage, layout: StateLayout) -> None:
    """Check every uop of a block that was recorded for ``stage``. Raise VerifierError for the first that is wrong.

    Besides the rows of the table, these rules are checked: a value is used after its uop and within the block of its
    uop, nothing follows the end of a path, and nothing that may leave follows a write of a register or of the state.
    """
    _Verifier(stage, layout).block(block, set(), (), committed=False)


@lru_cache
def _parse(signature: str) -> tuple[tuple[str, ...], str]:
    """The widths of the arguments, and that of the result or ""."""
    left, _, right = signature.partition("->")
    return tuple(left.split()), right.strip()


class _Verifier:
    def __init__(self, stage: Stage, layout: StateLayout) -> None:
        self._stage = stage
        self._layout = layout

    def block(self, block: Iterable[Uop], known: set[Uop], loops: tuple[Uop, ...], committed: bool) -> bool:
        """Check a block where the values ``known`` are, inside ``loops``, innermost last.

        ``committed``: a register or the state may have been written before. Return whether it may have been after.
        """
        ended: Uop | None = None
        for uop in block:
            if ended is not None:
                raise VerifierError(f"{uop!r} is never reached: {ended!r} ends the path")
            row = self._uop(uop, known, loops)
            effect = effect_of(uop)
            if committed and Effect.MAY_LEAVE in effect:
                raise VerifierError(f"{uop!r} may leave after a register or the state was written")
            if Effect.CONTROLS in effect:
                committed |= self._body(uop, known, loops, committed)
            elif uop.body:
                raise VerifierError(f"{uop!r} has a body")
            committed |= bool(effect & COMMITS)
            if row.position is Position.NOWHERE:
                raise VerifierError(f"{uop!r} stands in a block, but is an argument only")
            if uop.width:
                known.add(uop)
            if Effect.ENDS_PATH in effect:
                ended = uop
        return committed and ended is None

    def _body(self, uop: Uop, known: set[Uop], loops: tuple[Uop, ...], committed: bool) -> bool:
        if uop.op != "for_each_bit":
            return self.block(uop.body, set(known), loops, committed)
        committed = self.block(uop.body, set(known), (*loops, uop), committed)
        return self.block(uop.body, set(known), (*loops, uop), committed)  # as the second round finds it

    def _uop(self, uop: Uop, known: set[Uop], loops: tuple[Uop, ...]) -> Row:
        row = UOPS.get(uop.op)
        if row is None:
            raise VerifierError(f"there is no uop {uop.op}")
        if not row.stages & self._stage:
            raise VerifierError(f"{uop!r} has no place in a {self._stage.name}")
        if not (uop.attr is None if row.attr is None else isinstance(uop.attr, row.attr)):
            raise VerifierError(f"{uop!r}: its attribute is not {row.attr and row.attr.__name__}")
        for arg in uop.args:
            self._argument(arg, uop, known, loops)
        _check_widths(uop, row)
        if uop.op in _ARRAY_OPS:
            self._check_word(uop)
        return row

    def _argument(self, arg: Uop, uop: Uop, known: set[Uop], loops: tuple[Uop, ...]) -> None:
        if arg in known or any(arg is loop for loop in loops):
            return
        if UOPS[arg.op].position is not Position.NOWHERE:
            raise VerifierError(f"{uop!r} uses {arg!r}, which is not known there")
        self._uop(arg, known, loops)

    def _check_word(self, uop: Uop) -> None:
        word = self._layout.words.get(str(uop.attr))
        if word is None:
            raise VerifierError(f"{uop!r}: the state has no word of that name")
        if _ARRAY_OPS[uop.op]:
            if (number := uop.args[0].number) is not None and number >= word.count:
                raise VerifierError(f"{uop!r}: the array has {word.count} elements")
        elif word.count != 1:
            raise VerifierError(f"{uop!r}: this is an array")


def _check_widths(uop: Uop, row: Row) -> None:
    wanted, result = _parse(row.signature)
    if wanted[-1:] == ("...",):
        wanted = wanted[:-2] + wanted[-2:-1] * (len(uop.args) - len(wanted) + 2)
    if len(wanted) != len(uop.args):
        raise VerifierError(f"{uop!r} has {len(uop.args)} arguments, not {len(wanted)}")
    letters: dict[str, int] = {}
    for arg, name in zip(uop.args, wanted, strict=True):
        if name == "loop":
            if arg.op != "for_each_bit":
                raise VerifierError(f"{uop!r} belongs to no loop")
        elif arg.width != (int(name) if name.isdigit() else letters.setdefault(name, arg.width)):
            raise VerifierError(f"{uop!r}: {arg!r} is {arg.width} bits wide where the table has {row.signature!r}")
    if uop.width and uop.width not in _WIDTHS:
        raise VerifierError(f"{uop!r}: there are no values of {uop.width} bits")
    match result:
        case "":
            right = uop.width == 0
        case "wider":
            right = uop.width > uop.args[0].width
        case "narrower":
            right = 0 < uop.width < uop.args[0].width
        case _:
            right = uop.width == (int(result) if result.isdigit() else letters.get(result, uop.width))
    if not right:
        raise VerifierError(f"{uop!r} is {uop.width} bits wide where the table has {row.signature!r}")
