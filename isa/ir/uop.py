"""The micro-operation language in which every instruction's semantics is written.

A semantics function is ordinary Python over symbolic values: it receives a :class:`Recorder` ``u``
and the instruction's fields, and calling it records a block of :class:`Uop`. A field is either a
number (the reference evaluator and the region tier know the whole word) or a symbolic *static*
value (the threaded tier compiles one handler for many words). Whatever is computed from static
values alone is static too, and may be worked out when the word is decoded.

Values have a width of 1, 8, 16, 32 or 64 bits and no sign. Python numbers are accepted wherever a
value is; they take the width of their neighbour.

The pure operations are the keys of :data:`PURE`; the others are

===============  =====================================================================
``const``        ``attr`` is the number
``field``        ``attr`` is the :class:`isa.ir.encoding.Field`; symbolic, static
``get_reg``      guest register of the current mode, ``args[0]`` its number
``set_reg``      ``args`` = number, value. A write to number 15 is not a branch: see below
``pc``           address of the instruction + 8
``get`` ``set``  an entry of :data:`isa.arm.state.LAYOUT` named by ``attr`` (flags, monitor, ...)
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
``exception``    raises ``attr``, an :class:`InsnException`; ends the path
``callout``      the sensitive operation ``attr``; ``args`` if the hypervisor does it, else what
                 it does follows as uops
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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from isa.arm.state import LAYOUT
from isa.ir.encoding import Field


class SemanticsError(TypeError):
    """A semantics function broke a rule of the language."""


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) & 1 else value


def _sdiv(a: int, b: int, width: int) -> int:
    x, y = _signed(a, width), _signed(b, width)
    if y == 0:
        return 0
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _adc_overflow(a: int, b: int, c: int, width: int) -> int:
    total = _signed(a, width) + _signed(b, width) + c
    return int(total != _signed(total & ((1 << width) - 1), width))


Fold = Callable[..., int]

#: Pure operations: what each computes from the numbers of its arguments and the width of the first
#: one (``zext``, ``sext`` and ``trunc`` are given the width of their argument too). Results are
#: reduced to the width of the value. This table is the definition: shift amounts must be below
#: the width, division by zero is 0, and INT_MIN / -1 is INT_MIN.
PURE: Mapping[str, Fold] = {
    "add": lambda a, b, w: a + b,
    "sub": lambda a, b, w: a - b,
    "mul": lambda a, b, w: a * b,
    "and": lambda a, b, w: a & b,
    "or": lambda a, b, w: a | b,
    "xor": lambda a, b, w: a ^ b,
    "shl": lambda a, b, w: a << b,
    "lshr": lambda a, b, w: a >> b,
    "ashr": lambda a, b, w: _signed(a, w) >> b,
    "ror": lambda a, b, w: a >> (b % w) | a << (w - b % w),
    "eq": lambda a, b, w: a == b,
    "ne": lambda a, b, w: a != b,
    "ult": lambda a, b, w: a < b,
    "slt": lambda a, b, w: _signed(a, w) < _signed(b, w),
    "select": lambda c, a, b, w: a if c else b,
    "zext": lambda a, w: a,
    "sext": _signed,
    "trunc": lambda a, w: a,
    "clz": lambda a, w: w - a.bit_length(),
    "popcount": lambda a, w: a.bit_count(),
    "bitreverse": lambda a, w: int(f"{a:0{w}b}"[::-1], 2),
    "bswap": lambda a, w: int.from_bytes(a.to_bytes(w // 8, "little"), "big"),
    "udiv": lambda a, b, w: a // b if b else 0,
    "sdiv": _sdiv,
    "adc": lambda a, b, c, w: a + b + c,
    "adc_carry": lambda a, b, c, w: (a + b + c) >> w,
    "adc_overflow": _adc_overflow,
}
_COMPARISONS = frozenset({"eq", "ne", "ult", "slt", "adc_carry", "adc_overflow"})

_ADDITIONS = frozenset({"adc", "adc_carry", "adc_overflow"})
_STATIC_LEAVES = frozenset({"const", "field"})


class BranchKind(Enum):
    """What a branch is to the control-flow graph; the architectural effect is the same for all."""

    JUMP = "jump"
    LOOP = "loop"  # a jump backwards
    CALL = "call"
    RETURN = "return"
    INDIRECT = "indirect"
    SYNCHRONISE = "synchronise"  # the mode, the tables or what is masked may have changed


class InsnException(Enum):
    """Exceptions that an instruction raises by itself (ARM ARM B1.8)."""

    UNDEFINED = "undefined"
    SUPERVISOR_CALL = "supervisor call"
    BREAKPOINT = "breakpoint"
    HYPERVISOR_CALL = "hypervisor call"
    SECURE_MONITOR_CALL = "secure monitor call"


@dataclass(frozen=True, slots=True)
class Access:
    """How a load or store accesses memory: its size in bytes and its flavour.

    ``signed``: sign-extend what is loaded. ``aligned``: an address that is not a multiple of the
    size is an alignment fault whatever SCTLR.A says. ``user``: with the permissions of user mode
    (LDRT and friends).
    """

    size: int
    signed: bool = False
    aligned: bool = False
    user: bool = False


class Uop:
    """One micro-operation and, where ``width`` is not 0, the value that it produces."""

    __slots__ = ("args", "attr", "body", "excluded", "op", "recorder", "width")

    def __init__(
        self,
        recorder: Recorder,
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
        self.excluded: frozenset[int] = frozenset()

    # -- what is known of the value ------------------------------------------------------------

    @property
    def number(self) -> int | None:
        """The value as a number if it is a constant."""
        return self.attr if self.op == "const" and isinstance(self.attr, int) else None

    @property
    def static(self) -> bool:
        """Whether it depends on the instruction word alone."""
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
        """y where this addition with carry is the subtraction x - y, written x + ~y + 1."""
        _, b, carry = self.args
        ones = (1 << b.width) - 1
        if carry.number != 1:
            return None
        if b.number is not None:
            return self.recorder.const(~b.number, b.width)
        return b.args[0] if b.op == "xor" and b.args[1].number == ones else None

    @property
    def operands(self) -> tuple[Uop, ...]:
        """``args`` as code generators want them: a subtraction has two, x and y."""
        if self.op in _ADDITIONS and (y := self.subtrahend) is not None:
            return self.args[0], y
        return self.args

    # -- arithmetic ----------------------------------------------------------------------------

    def _binary(self, op: str, other: Uop | int, swap: bool = False) -> Uop:
        right = self.recorder.value(other, self.width)
        a, b = (right, self) if swap else (self, right)
        return self.recorder.pure(op, 1 if op in _COMPARISONS else self.width, a, b)

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
        """Logical shift right; :meth:`ashr` is the arithmetic one."""
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
        """Unsigned quotient, 0 for a zero divisor."""
        return self._binary("udiv", other)

    def sdiv(self, other: Uop | int) -> Uop:
        """Signed quotient rounded towards zero, 0 for a zero divisor."""
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
        """Bit ``number`` as a value of width 1."""
        return (self >> number).trunc(1)

    def bits(self, high: int, low: int) -> Uop:
        """Bits ``high`` to ``low``, inclusive, zero-extended to the width of the value."""
        return (self >> low) & ((1 << (high - low + 1)) - 1)


class _Registers:
    """``u.reg[n]``: the guest's registers as the current mode sees them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getitem__(self, number: Uop | int) -> Uop:
        index = self._recorder.value(number, 32)
        if index.number == 15:
            return self._recorder.pc
        return self._recorder.emit("get_reg", 32, index)

    def __setitem__(self, number: Uop | int, value: Uop | int) -> None:
        """A write to R15 is discarded, for encodings where it is UNPREDICTABLE; a branch is u.*_write_pc.

        choice: discarded-pc-write
        """
        index = self._recorder.value(number, 32)
        self._recorder.wrote_register = True
        if index.number != 15:
            self._recorder.emit("set_reg", 0, index, self._recorder.value(value, 32))


class _Scratch:
    """``u.temp[n]``, 0 <= n < 16: words that live for one instruction."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getitem__(self, number: Uop | int) -> Uop:
        return self._recorder.emit("get_temp", 32, self._recorder.value(number, 32))

    def __setitem__(self, number: Uop | int, value: Uop) -> None:
        self._recorder.emit("set_temp", 0, self._recorder.value(number, 32), value)


class _StateWord:
    """``u.<name>``: the low ``width`` bits of a word of the state."""

    def __init__(self, name: str, width: int) -> None:
        self._name, self._width = name, width

    def __get__(self, recorder: Recorder, _: type[Recorder] | None = None) -> Uop:
        return recorder.get(self._name).trunc(self._width)

    def __set__(self, recorder: Recorder, value: Uop | int) -> None:
        recorder.set(self._name, recorder.value(value, self._width).zext(32))


class Recorder:
    """Records the uops of one instruction. See the module's docstring for the language.

    Rule of precision: an instruction that faults must have changed nothing that matters, so no
    load or store may follow a register or flag write. The recorder enforces it.
    """

    n = _StateWord("n", 1)
    z = _StateWord("z", 1)
    c = _StateWord("c", 1)
    v = _StateWord("v", 1)
    q = _StateWord("q", 1)
    ge = _StateWord("ge", 32)

    def __init__(self) -> None:
        self.block: list[Uop] = []
        self.reg = _Registers(self)
        self.temp = _Scratch(self)
        self.wrote_register = False

    # -- values --------------------------------------------------------------------------------

    def const(self, number: int, width: int = 32) -> Uop:
        return Uop(self, "const", width, attr=number & ((1 << width) - 1))

    def field(self, field: Field, excluded: frozenset[int] = frozenset()) -> Uop:
        """A symbolic field, 32 bits wide, known not to have the ``excluded`` values."""
        uop = Uop(self, "field", 32, attr=field)
        uop.excluded = excluded
        return uop

    def value(self, value: Uop | int, width: int) -> Uop:
        if isinstance(value, int):
            return self.const(value, width)
        if value.width != width:
            raise SemanticsError(f"{value!r} is {value.width} bits wide where {width} are wanted")
        return value

    def pure(self, op: str, width: int, *args: Uop) -> Uop:
        """The value of a pure operation; worked out here and now if its arguments are constants."""
        numbers = [arg.attr for arg in args if arg.op == "const"]
        if len(numbers) == len(args):
            operand_width = args[1].width if op == "select" else args[0].width
            return self.const(int(PURE[op](*numbers, operand_width)), width)
        if op == "select" and args[0].op == "const":
            return args[1] if args[0].attr else args[2]
        return self.emit(op, width, *args)

    def emit(self, op: str, width: int, *args: Uop, attr: object = None) -> Uop:
        uop = Uop(self, op, width, args, attr)
        self.block.append(uop)
        return uop

    def select(self, condition: Uop, if_true: Uop | int, if_false: Uop | int) -> Uop:
        width = next((v.width for v in (if_true, if_false) if isinstance(v, Uop)), 32)
        return self.pure("select", width, condition, self.value(if_true, width), self.value(if_false, width))

    def add_with_carry(self, a: Uop, b: Uop | int, carry: Uop | int) -> tuple[Uop, Uop, Uop]:
        """``AddWithCarry`` of the manual (A2.2.1): the sum, the carry out and the overflow."""
        args = (a, self.value(b, a.width), self.value(carry, 1))
        return self.pure("adc", a.width, *args), self.pure("adc_carry", 1, *args), self.pure("adc_overflow", 1, *args)

    # -- state ---------------------------------------------------------------------------------

    @property
    def pc(self) -> Uop:
        """What an instruction reads as R15: its own address + 8."""
        return self.emit("pc", 32)

    def get(self, name: str) -> Uop:
        if name not in LAYOUT.words:
            raise SemanticsError(f"the state has no word named {name}")
        return self.emit("get", 32, attr=name)

    def set(self, name: str, value: Uop | int) -> None:
        if name not in LAYOUT.words:
            raise SemanticsError(f"the state has no word named {name}")
        self.wrote_register = True
        self.emit("set", 0, self.value(value, 32), attr=name)

    def get_at(self, name: str, index: Uop | int) -> Uop:
        """An element of an array of the state."""
        return self.emit("get_at", 32, self.value(index, 32), attr=name)

    def set_at(self, name: str, index: Uop | int, value: Uop | int) -> None:
        self.wrote_register = True
        self.emit("set_at", 0, self.value(index, 32), self.value(value, 32), attr=name)

    # -- memory --------------------------------------------------------------------------------

    def _access(self, op: str, width: int, args: tuple[Uop, ...], access: Access) -> Uop:
        if self.wrote_register:
            raise SemanticsError(f"{op} after a register write: a fault would not be precise")
        return self.emit(op, width, *args, attr=access)

    def load(self, address: Uop, size: int, *, signed: bool = False, aligned: bool = False, user: bool = False) -> Uop:
        """Load ``size`` (1, 2, 4) bytes, little-endian, extended to 32 bits. May fault."""
        return self._access("load", 32, (address,), Access(size, signed, aligned, user))

    def store(self, address: Uop, value: Uop, size: int, *, aligned: bool = False, user: bool = False) -> None:
        """Store the low ``size`` (1, 2, 4) bytes of a 32-bit value, little-endian. May fault."""
        self._access("store", 0, (address, self.value(value, 32)), Access(size, False, aligned, user))

    # -- control -------------------------------------------------------------------------------

    @contextmanager
    def _nested(self, uop: Uop) -> Iterator[None]:
        outer, self.block = self.block, uop.body
        try:
            yield
        finally:
            self.block = outer

    @contextmanager
    def when(self, condition: Uop) -> Iterator[None]:
        """Execute the body if ``condition`` is 1. Values made inside must not be used outside."""
        uop = Uop(self, "when", 0, (condition,))
        wrote = self.wrote_register
        with self._nested(uop):
            yield
        if condition.number is None:
            self.block.append(uop)
        elif condition.number:
            self.block.extend(uop.body)
        else:
            self.wrote_register = wrote

    @contextmanager
    def for_each_bit(self, mask: Uop) -> Iterator[tuple[Uop, Uop]]:
        """Execute the body for each 1 of ``mask``, lowest first; yields its number and its ordinal."""
        uop = Uop(self, "for_each_bit", 0, (mask,))
        with self._nested(uop):
            yield Uop(self, "bit_index", 32, (uop,)), Uop(self, "bit_ordinal", 32, (uop,))
        self.block.append(uop)

    def branch(self, target: Uop, kind: BranchKind = BranchKind.JUMP) -> None:
        """``BranchWritePC``: jump to an address whose low two bits are ignored (A2.3.1)."""
        self.emit("branch", 0, target, attr=kind)

    def interwork(self, target: Uop) -> None:
        """The first half of ``BXWritePC`` (A2.3.1): bit 0 selects Thumb, for which this processor leaves.

        As whoever leaves must not have changed anything, it comes before register writes; then :meth:`branch`.
        A target with bits 1:0 = 0b10 is UNPREDICTABLE; we choose to ignore bit 1. choice: branch-target-bit-1
        """
        with self.when(target.bit(0)):
            self.callout("enter_thumb", target)

    def bx_write_pc(self, target: Uop, kind: BranchKind = BranchKind.INDIRECT) -> None:
        """``BXWritePC`` where nothing else is written."""
        self.interwork(target)
        self.branch(target, kind)

    # ARMv7 interworks on loads to the PC and, in A32, on data processing to the PC. choice: pc-write-interworks
    alu_write_pc = bx_write_pc

    def exception(self, kind: InsnException, immediate: Uop | int = 0) -> None:
        self.emit("exception", 0, self.value(immediate, 32), attr=kind)

    def undefined(self) -> None:
        self.exception(InsnException.UNDEFINED)

    def callout(self, name: str, *args: Uop | int) -> Uop | None:
        """A sensitive operation. The result is that of its definition, if it has one: see :mod:`isa.arm.callouts`."""
        callout = CALLOUTS.get(name)
        if callout is None:
            raise SemanticsError(f"no callout is named {name}")
        if name == "enter_thumb" and self.wrote_register:
            raise SemanticsError("the instruction set is changed after a register write: the exit would not be precise")
        values = tuple(self.value(arg, 32) for arg in args)
        if callout.definition is None:
            self.emit("callout", 0, *values, attr=name)
            return None
        self.emit("callout", 0, attr=name)
        return callout.definition(self, *values)

    def callout_value(self, name: str, *args: Uop | int) -> Uop:
        """A sensitive operation that has a result."""
        value = self.callout(name, *args)
        assert value is not None, f"{name} has no result"
        return value

    # -- routines ------------------------------------------------------------------------------

    def param(self, name: str) -> Uop:
        return self.emit("param", 32, attr=name)

    def result(self, value: Uop) -> None:
        """End the routine."""
        self.emit("result", 0, value)

    def in_ram(self, gpa: Uop) -> Uop:
        return self.emit("in_ram", 1, gpa)

    def load_physical(self, gpa: Uop) -> Uop:
        return self.emit("load_physical", 32, gpa)


@dataclass(frozen=True, slots=True)
class Callout:
    """A sensitive operation. ``definition`` records what it does and returns its result, if any; without one
    the hypervisor does it. ``leaves``: the instruction's path ends there. ``synchronises``: the mode, the tables or
    what is masked may be others after it, so that what comes next is looked up anew.
    """

    name: str
    meaning: str
    definition: Callable[..., Uop | None] | None
    leaves: bool = False
    synchronises: bool = False


#: The sensitive operations by name; :mod:`isa.arm.callouts` fills it.
CALLOUTS: dict[str, Callout] = {}
