"""The micro-operation language, in which the semantics of every instruction is written.

A semantics function is ordinary Python over symbolic values. It receives a :class:`~isa.ir.recorder.Recorder` ``u`` and
the instruction's fields, and calling it records a block of :class:`Uop`. In the reference tier and the region tier,
which know the whole word, a field is a number. In the threaded tier, which compiles one handler for many words, it is a
symbolic *static* value. A value that is computed from static values alone is static too, and can be computed at decode
time.

Values have a width of 1, 8, 16, 32 or 64 bits and no sign. Python numbers are accepted in place of values, and take the
width of the other operand.

The pure operations are the keys of :data:`isa.ir.operations.PURE`. The others are

===============  =====================================================================
``const``        ``attr`` is the number
``field``        ``attr`` is the :class:`isa.ir.encoding.Field`; symbolic, static
``get_reg``      guest register of the current mode, ``args[0]`` its number
``set_reg``      ``args`` = number, value
``pc``           address of the instruction, plus ``attr``
``get`` ``set``  the word of the state's layout named by ``attr`` (flags, monitor, ...)
``get_at``       element ``args[0]`` of the array of the state named by ``attr``
``set_at``       ``args`` = number, value
``load``         ``args[0]`` address; ``attr`` an :class:`Access`; 32 bits wide
``store``        ``args`` = address, value; ``attr`` an :class:`Access`
``get_temp``     scratch word ``args[0]``, for block transfers; dead after the instruction
``set_temp``     ``args`` = number, value
``when``         executes ``body`` if ``args[0]`` (width 1) is 1
``for_each_bit`` executes ``body`` for each 1 in the mask ``args[0]``, from bit 0 up
``bit_index``    inside ``for_each_bit`` ``args[0]``: the number of the bit
``bit_ordinal``  inside ``for_each_bit`` ``args[0]``: how many bits came before it
``branch``       leaves for address ``args[0]``; ``attr`` is a :class:`BranchKind`; ends the path
``exception``    raises ``attr``, an exception of the instruction set; ends the path
``callout``      the sensitive operation ``attr``, a :class:`isa.ir.callouts.Callout`; ``args`` if the
                 hypervisor does it, else what it does follows as uops
===============  =====================================================================

and, in routines (:mod:`isa.ir.routines`) only,

===============  =====================================================================
``param``        the parameter named ``attr``
``result``       ends the path; the routine's result is ``args[0]``
``in_ram``       whether the word at guest physical address ``args[0]`` is in RAM
``load_physical``  that word
===============  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from isa.ir.encoding import Field
from isa.ir.operations import ADDITIONS, COMPARISONS, PURE


class SemanticsError(TypeError):
    """Raised if a semantics function breaks a rule of the language."""


_STATIC_LEAVES = frozenset({"const", "field"})


class ValueSource(Protocol):
    """The methods of a recorder that a value needs, to make other values from it."""

    def const(self, number: int, width: int = 32) -> Uop: ...

    def value(self, value: Uop | int, width: int) -> Uop: ...

    def pure(self, op: str, width: int, *args: Uop) -> Uop: ...


class BranchKind(Enum):
    """The role of a branch in the control-flow graph. The architectural effect is the same for all kinds."""

    JUMP = "jump"
    LOOP = "loop"  # a jump backwards
    CALL = "call"
    RETURN = "return"
    INDIRECT = "indirect"
    SYNCHRONISE = "synchronise"  # the mode, the tables or what is masked may have changed


@dataclass(frozen=True, slots=True)
class Access:
    """How a load or store accesses memory. ``size`` is in bytes.

    - ``signed``: what is loaded is sign-extended.
    - ``aligned``: an address that is not a multiple of the size is an alignment fault, whatever SCTLR.A says.
    - ``user``: the permissions of user mode apply, as for LDRT.
    """

    size: int
    signed: bool = False
    aligned: bool = False
    user: bool = False


class Uop:
    """One micro-operation, and the value that it produces if ``width`` is not 0."""

    __slots__ = ("args", "attr", "body", "excluded", "op", "recorder", "width")

    def __init__(
        self,
        recorder: ValueSource,
        op: str,
        width: int,
        args: tuple[Uop, ...] = (),
        attr: object = None,
        body: list[Uop] | None = None,
    ) -> None:
        self.recorder = recorder
        self.op = op
        self.width = width
        self.args = args
        self.attr = attr
        self.body: list[Uop] = body if body is not None else []
        #: Values that it is known not to have.
        self.excluded: frozenset[int] = frozenset()

    # -- what is known of the value ------------------------------------------------------------

    @property
    def number(self) -> int | None:
        """The value as a number if it is a constant, else None."""
        return self.attr if self.op == "const" and isinstance(self.attr, int) else None

    @property
    def static(self) -> bool:
        """True if the value depends on the instruction word alone."""
        return self.op in _STATIC_LEAVES or (self.op in PURE and all(arg.static for arg in self.args))

    def __bool__(self) -> bool:
        if self.number is None:
            raise SemanticsError(f"Python cannot branch on {self!r}: use u.when, u.select, or name it in forms=")
        return bool(self.number)

    def __index__(self) -> int:
        if self.number is None:
            raise SemanticsError(f"{self!r} is not a number here: name the field in forms=")
        return self.number

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if self.op == "const":
            return f"{self.attr:#x}"
        if self.op == "field":
            assert isinstance(self.attr, Field)
            return f"<{self.attr.name}>"
        attr = "" if self.attr is None else f"[{self.attr}]"
        return f"{self.op}{attr}({', '.join(map(repr, self.args))})"

    @property
    def subtrahend(self) -> Uop | None:
        """The operand y if this addition with carry is a subtraction x - y, written as x + ~y + 1, else None."""
        _, b, carry = self.args
        ones = (1 << b.width) - 1
        if carry.number != 1:
            return None
        if b.number is not None:
            return self.recorder.const(~b.number, b.width)
        return b.args[0] if b.op == "xor" and b.args[1].number == ones else None

    @property
    def operands(self) -> tuple[Uop, ...]:
        """The arguments for code generators. A subtraction has two, x and y; for others they are ``args``."""
        if self.op in ADDITIONS and (y := self.subtrahend) is not None:
            return self.args[0], y
        return self.args

    # -- arithmetic ----------------------------------------------------------------------------

    def _binary(self, op: str, other: Uop | int, swap: bool = False) -> Uop:
        right = self.recorder.value(other, self.width)
        a, b = (right, self) if swap else (self, right)
        return self.recorder.pure(op, 1 if op in COMPARISONS else self.width, a, b)

    def __add__(self, other: Uop | int) -> Uop:
        return self._binary("add", other)

    def __radd__(self, other: int) -> Uop:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Uop | int) -> Uop:
        return self._binary("sub", other)

    def __rsub__(self, other: int) -> Uop:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Uop | int) -> Uop:
        return self._binary("mul", other)

    def __and__(self, other: Uop | int) -> Uop:
        return self._binary("and", other)

    def __rand__(self, other: int) -> Uop:
        return self._binary("and", other, swap=True)

    def __or__(self, other: Uop | int) -> Uop:
        return self._binary("or", other)

    def __ror__(self, other: int) -> Uop:
        return self._binary("or", other, swap=True)

    def __xor__(self, other: Uop | int) -> Uop:
        return self._binary("xor", other)

    def __invert__(self) -> Uop:
        return self._binary("xor", (1 << self.width) - 1)

    def __neg__(self) -> Uop:
        return self._binary("sub", 0, swap=True)

    def __lshift__(self, other: Uop | int) -> Uop:
        return self._binary("shl", other)

    def __rshift__(self, other: Uop | int) -> Uop:
        """Return the logical shift right. :meth:`ashr` is the arithmetic one."""
        return self._binary("lshr", other)

    def ashr(self, other: Uop | int) -> Uop:
        return self._binary("ashr", other)

    def ror(self, other: Uop | int) -> Uop:
        return self._binary("ror", other)

    def __eq__(self, other: object) -> Uop:  # type: ignore[override]
        assert isinstance(other, (Uop, int))
        if isinstance(other, int) and other in self.excluded:
            return self.recorder.const(0, 1)
        return self._binary("eq", other)

    def __ne__(self, other: object) -> Uop:  # type: ignore[override]
        assert isinstance(other, (Uop, int))
        if isinstance(other, int) and other in self.excluded:
            return self.recorder.const(1, 1)
        return self._binary("ne", other)

    def ult(self, other: Uop | int) -> Uop:
        return self._binary("ult", other)

    def slt(self, other: Uop | int) -> Uop:
        return self._binary("slt", other)

    def udiv(self, other: Uop | int) -> Uop:
        """Return the unsigned quotient, which is 0 for a zero divisor."""
        return self._binary("udiv", other)

    def sdiv(self, other: Uop | int) -> Uop:
        """Return the signed quotient rounded towards zero, which is 0 for a zero divisor."""
        return self._binary("sdiv", other)

    def zext(self, width: int) -> Uop:
        return self if width == self.width else self.recorder.pure("zext", width, self)

    def sext(self, width: int) -> Uop:
        return self if width == self.width else self.recorder.pure("sext", width, self)

    def trunc(self, width: int) -> Uop:
        return self if width == self.width else self.recorder.pure("trunc", width, self)

    def clz(self) -> Uop:
        return self.recorder.pure("clz", self.width, self)

    def popcount(self) -> Uop:
        return self.recorder.pure("popcount", self.width, self)

    def bitreverse(self) -> Uop:
        return self.recorder.pure("bitreverse", self.width, self)

    def bswap(self) -> Uop:
        return self.recorder.pure("bswap", self.width, self)

    def bit(self, number: int | Uop) -> Uop:
        """Return bit ``number`` as a value of width 1."""
        return (self >> number).trunc(1)

    def bits(self, high: int, low: int) -> Uop:
        """Return the bits ``high`` to ``low``, inclusive, zero-extended to the width of the value."""
        return (self >> low) & ((1 << (high - low + 1)) - 1)
