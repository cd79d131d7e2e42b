"""The recorder, whose methods a semantics function calls to record the uops of one instruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from isa.ir.callouts import Callout
from isa.ir.encoding import Field
from isa.ir.layout import StateLayout
from isa.ir.operations import PURE
from isa.ir.queries import ends_path
from isa.ir.uop import Access, BranchKind, SemanticsError, Uop


class Registers:
    """The guest's registers as the current mode sees them: ``u.reg[n]``."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getitem__(self, number: Uop | int) -> Uop:
        return self._recorder.emit("get_reg", 32, self._recorder.value(number, 32))

    def __setitem__(self, number: Uop | int, value: Uop | int) -> None:
        self._recorder.wrote_register = True
        self._recorder.emit("set_reg", 0, self._recorder.value(number, 32), self._recorder.value(value, 32))


class _Scratch:
    """``u.temp[n]``, 0 <= n < 16: words that live for one instruction."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getitem__(self, number: Uop | int) -> Uop:
        return self._recorder.emit("get_temp", 32, self._recorder.value(number, 32))

    def __setitem__(self, number: Uop | int, value: Uop) -> None:
        self._recorder.emit("set_temp", 0, self._recorder.value(number, 32), value)


class StateBits:
    """The low ``width`` bits of a word of the state, as an attribute of a recorder: ``u.<name>``."""

    def __init__(self, name: str, width: int) -> None:
        self._name, self._width = name, width

    def __get__(self, recorder: Recorder, _: type[Recorder] | None = None) -> Uop:
        return recorder.get(self._name).trunc(self._width)

    def __set__(self, recorder: Recorder, value: Uop | int) -> None:
        recorder.set(self._name, recorder.value(value, self._width).zext(32))


class Recorder:
    """Records the uops of one instruction. See :mod:`isa.ir.uop` for the language.

    Each instruction set has a subclass, which names the layout of its state and its callouts. ``block`` has the uops
    recorded so far. Uops after the end of a path are dropped.

    The rule of precision: an instruction that faults or leaves must have changed nothing that matters. So no load,
    store or callout that leaves may follow a register or flag write. The recorder raises SemanticsError otherwise.
    """

    def __init__(self, layout: StateLayout, callouts: Mapping[str, Callout]) -> None:
        self.layout = layout
        self.callouts = callouts
        self.block: list[Uop] = []
        self.reg = Registers(self)
        self.temp = _Scratch(self)
        self.wrote_register = False
        self._ended = False  # control does not come here: what follows is not recorded

    # -- values --------------------------------------------------------------------------------

    def const(self, number: int, width: int = 32) -> Uop:
        return Uop(self, "const", width, attr=number & ((1 << width) - 1))

    def field(self, field: Field, excluded: frozenset[int] = frozenset()) -> Uop:
        """Return a symbolic field, 32 bits wide, which is known not to have the ``excluded`` values."""
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
        """Return the value of a pure operation. If its arguments are constants, it is a constant."""
        numbers = [arg.attr for arg in args if arg.op == "const"]
        if len(numbers) == len(args):
            operand_width = args[1].width if op == "select" else args[0].width
            return self.const(int(PURE[op](*numbers, operand_width)), width)
        if op == "select" and args[0].op == "const":
            return args[1] if args[0].attr else args[2]
        return self.emit(op, width, *args)

    def emit(self, op: str, width: int, *args: Uop, attr: object = None) -> Uop:
        return self._append(Uop(self, op, width, args, attr))

    def _append(self, uop: Uop) -> Uop:
        if not self._ended:
            self.block.append(uop)
        return uop

    def select(self, condition: Uop, if_true: Uop | int, if_false: Uop | int) -> Uop:
        width = next((v.width for v in (if_true, if_false) if isinstance(v, Uop)), 32)
        return self.pure("select", width, condition, self.value(if_true, width), self.value(if_false, width))

    def add_with_carry(self, a: Uop, b: Uop | int, carry: Uop | int) -> tuple[Uop, Uop, Uop]:
        """Return the sum, the carry out and the signed overflow of an addition with carry in."""
        args = (a, self.value(b, a.width), self.value(carry, 1))
        return self.pure("adc", a.width, *args), self.pure("adc_carry", 1, *args), self.pure("adc_overflow", 1, *args)

    # -- state ---------------------------------------------------------------------------------

    def address(self, ahead: int = 0) -> Uop:
        """Return the address of the instruction plus ``ahead`` bytes."""
        return self.emit("pc", 32, attr=ahead)

    def _word(self, name: str) -> str:
        if name not in self.layout.words:
            raise SemanticsError(f"the state has no word named {name}")
        return name

    def get(self, name: str) -> Uop:
        """Return the word of the state that has this name."""
        return self.emit("get", 32, attr=self._word(name))

    def set(self, name: str, value: Uop | int) -> None:
        """Write the word of the state that has this name."""
        self.wrote_register = True
        self.emit("set", 0, self.value(value, 32), attr=self._word(name))

    def get_at(self, name: str, index: Uop | int) -> Uop:
        """Return an element of an array of the state."""
        return self.emit("get_at", 32, self.value(index, 32), attr=self._word(name))

    def set_at(self, name: str, index: Uop | int, value: Uop | int) -> None:
        """Write an element of an array of the state."""
        self.wrote_register = True
        self.emit("set_at", 0, self.value(index, 32), self.value(value, 32), attr=self._word(name))

    # -- memory --------------------------------------------------------------------------------

    def _access(self, op: str, width: int, args: tuple[Uop, ...], access: Access) -> Uop:
        if self.wrote_register:
            raise SemanticsError(f"{op} after a register write: a fault would not be precise")
        return self.emit(op, width, *args, attr=access)

    def load(self, address: Uop, size: int, *, signed: bool = False, aligned: bool = False, user: bool = False) -> Uop:
        """Load ``size`` (1, 2 or 4) bytes, little-endian, and return them extended to 32 bits. A load may fault.

        ``signed``, ``aligned`` and ``user`` are those of :class:`isa.ir.uop.Access`.
        """
        return self._access("load", 32, (address,), Access(size, signed, aligned, user))

    def store(self, address: Uop, value: Uop, size: int, *, aligned: bool = False, user: bool = False) -> None:
        """Store the low ``size`` (1, 2 or 4) bytes of a 32-bit value, little-endian. A store may fault."""
        self._access("store", 0, (address, self.value(value, 32)), Access(size, False, aligned, user))

    # -- control -------------------------------------------------------------------------------

    @contextmanager
    def _nested(self, uop: Uop) -> Iterator[None]:
        outer, ended, self.block = self.block, self._ended, uop.body
        try:
            yield
        finally:
            self.block, self._ended = outer, ended

    @contextmanager
    def when(self, condition: Uop) -> Iterator[None]:
        """Execute the body of the ``with`` block if ``condition`` is 1. Its values must not be used outside."""
        uop = Uop(self, "when", 0, (condition,))
        wrote = self.wrote_register
        with self._nested(uop):
            yield
        if condition.number is None:
            self._append(uop)
        elif condition.number:
            for inner in uop.body:
                self._append(inner)
            self._ended |= ends_path(uop.body)
        else:
            self.wrote_register = wrote

    @contextmanager
    def for_each_bit(self, mask: Uop) -> Iterator[tuple[Uop, Uop]]:
        """Execute the body for each 1 of ``mask``, the lowest first. Yield the bit's number and its ordinal among
        them.
        """
        uop = Uop(self, "for_each_bit", 0, (mask,))
        with self._nested(uop):
            yield Uop(self, "bit_index", 32, (uop,)), Uop(self, "bit_ordinal", 32, (uop,))
        self._append(uop)

    def branch(self, target: Uop, kind: BranchKind = BranchKind.JUMP) -> None:
        """Jump to an address. The low bits, which are 0 in every instruction's address, are ignored."""
        self.emit("branch", 0, target, attr=kind)
        self._ended = True

    def exception(self, kind: Enum, immediate: Uop | int = 0) -> None:
        """Raise an exception of the instruction set. ``immediate`` is the number in the instruction, if it has one."""
        self.emit("exception", 0, self.value(immediate, 32), attr=kind)
        self._ended = True

    def callout(self, name: str, *args: Uop | int) -> Uop | None:
        """Make a callout, and return its result, or None. See :mod:`isa.ir.callouts`."""
        callout = self.callouts.get(name)
        if callout is None:
            raise SemanticsError(f"no callout is named {name}")
        values = tuple(self.value(arg, 32) for arg in args)
        if callout.definition is not None:
            self.emit("callout", 0, attr=callout)
            return callout.definition(self, *values)
        if (callout.leaves or callout.may_leave) and self.wrote_register:
            raise SemanticsError(f"{name} after a register write: leaving would not be precise")
        if callout.has_result:
            return self.emit("callout_value", 32, *values, attr=callout)
        self.emit("callout", 0, *values, attr=callout)
        self._ended |= callout.leaves
        return None

    def callout_value(self, name: str, *args: Uop | int) -> Uop:
        """Make a callout that has a result, and return the result."""
        value = self.callout(name, *args)
        assert value is not None, f"{name} has no result"
        return value

    # -- routines ------------------------------------------------------------------------------

    def param(self, name: str) -> Uop:
        """Return a parameter of the routine."""
        return self.emit("param", 32, attr=name)

    def result(self, value: Uop) -> None:
        """End the routine with this result."""
        self.emit("result", 0, value)
        self._ended = True

    def in_ram(self, gpa: Uop) -> Uop:
        """Return 1 if the word at a guest physical address is in RAM, else 0, as a value of width 1."""
        return self.emit("in_ram", 1, gpa)

    def load_physical(self, gpa: Uop) -> Uop:
        """Return the word at a guest physical address, which must be in RAM."""
        return self.emit("load_physical", 32, gpa)
