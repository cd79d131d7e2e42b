"""A builder of LLVM functions from typed values and structured control, for code that is not lowered from uops.

Values carry their LLVM type, so that a wrong width is an error here and not in LLVM. Loads, stores and calls are
checked as well. A Python number is accepted wherever a value is. ``with f.when(condition):`` and the loops write blocks
and branches. What changes in a loop or on one of two paths is a :class:`Variable`, which SROA turns into values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dbt.abi.cpu import NATIVE
from dbt.abi.exits import ExitCode
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.backend.convention import ARGUMENTS, header, tail_call
from dbt.backend.module import Function
from isa.arm.state import LAYOUT, PSR_MODE, Mode

#: The size in bytes of the types of values that memory holds.
_SIZES = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "ptr": 8}
R15 = LAYOUT["r"].offset + 4 * 15


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of an LLVM function. ``text`` is the operand that names it, and ``type`` is its LLVM type.

    Arithmetic is unsigned, and its operands are integers of one type. The comparisons are methods that return an i1.
    """

    f: Builder
    text: str
    type: str

    def __str__(self) -> str:
        return self.text

    def operand(self, other: Value | int) -> str:
        """Return ``other`` as an operand beside this value. Raises TypeError if it has another type."""
        if isinstance(other, int):
            return str(other) if self.type != "i1" else str(bool(other)).lower()
        if other.type != self.type:
            raise TypeError(f"{other.text} is {other.type} where {self.text} is {self.type}")
        return other.text

    def _binary(self, instruction: str, other: Value | int) -> Value:
        right = self.operand(other)
        return Value(self.f, self.f.emit(f"{instruction} {self.type} {self.text}, {right}"), self.type)

    def _compare(self, how: str, other: Value | int) -> Value:
        right = "null" if self.type == "ptr" and other == 0 else self.operand(other)
        return Value(self.f, self.f.emit(f"icmp {how} {self.type} {self.text}, {right}"), "i1")

    def __add__(self, other: Value | int) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Value | int) -> Value:
        return self._binary("sub", other)

    def __mul__(self, other: Value | int) -> Value:
        return self._binary("mul", other)

    def __floordiv__(self, other: Value | int) -> Value:
        return self._binary("udiv", other)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __invert__(self) -> Value:
        return self._binary("xor", 1 if self.type == "i1" else -1)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._binary("lshr", other)

    def eq(self, other: Value | int) -> Value:
        """Return an i1: equal. A pointer can be compared with 0, which is null."""
        return self._compare("eq", other)

    def ne(self, other: Value | int) -> Value:
        """Return an i1: not equal. A pointer can be compared with 0, which is null."""
        return self._compare("ne", other)

    def ult(self, other: Value | int) -> Value:
        """Return an i1: less, unsigned."""
        return self._compare("ult", other)

    def uge(self, other: Value | int) -> Value:
        """Return an i1: greater or equal, unsigned."""
        return self._compare("uge", other)

    def ugt(self, other: Value | int) -> Value:
        """Return an i1: greater, unsigned."""
        return self._compare("ugt", other)

    def slt(self, other: Value | int) -> Value:
        """Return an i1: less, signed."""
        return self._compare("slt", other)

    def has(self, bits: int) -> Value:
        """Return an i1: at least one of these bits is 1."""
        return (self & bits).ne(0)

    def to(self, type_: str) -> Value:
        """Return this integer with another width, zero-extended or truncated; or a pointer as an i64."""
        if type_ == self.type:
            return self
        if self.type == "ptr":
            return Value(self.f, self.f.emit(f"ptrtoint ptr {self.text} to {type_}"), type_)
        instruction = "zext" if int(type_[1:]) > int(self.type[1:]) else "trunc"
        return Value(self.f, self.f.emit(f"{instruction} {self.type} {self.text} to {type_}"), type_)

    def choose(self, if_true: Value | int, if_false: Value | int, type_: str = "") -> Value:
        """Return one of two values, selected by this i1. ``type_`` is needed if both are numbers."""
        type_ = type_ or next(value.type for value in (if_true, if_false) if isinstance(value, Value))
        a, b = (self.f.value(type_, value) for value in (if_true, if_false))
        return Value(self.f, self.f.emit(f"select i1 {self.text}, {type_} {a}, {type_} {b}"), type_)

    def at(self, offset: Value | int) -> Value:
        """Return the pointer that is ``offset`` bytes (a number, or an i64) behind this one."""
        return self._pointer("i8", offset)

    def element(self, type_: str, index: Value | int) -> Value:
        """Return the pointer to element ``index`` of an array of ``type_`` here. An index is zero-extended."""
        return self._pointer(type_, index)

    def _pointer(self, type_: str, index: Value | int) -> Value:
        if self.type != "ptr":
            raise TypeError(f"{self.text} is no pointer, but {self.type}")
        wide = index if isinstance(index, int) else index.to("i64").text
        return Value(self.f, self.f.emit(f"getelementptr {type_}, ptr {self.text}, i64 {wide}"), "ptr")

    def load(self, type_: str, align: int = 0) -> Value:
        """Load a value from this pointer. ``align`` is needed if the address may not be a multiple of the size."""
        suffix = f", align {align}" if align else ""
        return Value(self.f, self.f.emit(f"load {type_}, ptr {self.text}{suffix}"), type_)


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """A variable of a function, of one type."""

    f: Builder
    pointer: Value
    type: str

    def get(self) -> Value:
        """Return the variable's value at this place of the function."""
        return self.pointer.load(self.type)

    def set(self, value: Value | int) -> None:
        """Assign another value."""
        self.f.store(self.f.value(self.type, value), self.pointer)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop whose body is being written."""

    f: Builder
    head: str
    after: str

    def again(self) -> None:
        """Continue with the next iteration."""
        self.f.jump(self.head)

    def leave(self) -> None:
        """Leave the loop."""
        self.f.jump(self.after)


class Builder(Function):
    """A function under construction. ``parameters`` are names and types; ``f["name"]`` is a parameter's value."""

    def __init__(self, first_line: str, parameters: Mapping[str, str]) -> None:
        super().__init__(first_line)
        self._parameters = parameters
        self._ended = False  # the place that is being written is unreachable

    def __getitem__(self, name: str) -> Value:
        return Value(self, f"%{name}", self._parameters[name])

    def value(self, type_: str, value: Value | int) -> Value:
        """Return a value of this type: the given value, which must have it, or the number as a constant."""
        if isinstance(value, Value):
            if value.type != type_:
                raise TypeError(f"{value.text} is {value.type} where {type_} is wanted")
            return value
        if type_ == "ptr" and value == 0:
            return Value(self, "null", type_)
        return Value(self, str(bool(value)).lower() if type_ == "i1" else str(value), type_)

    def function(self, name: str) -> Value:
        """Return a function of the image as a pointer."""
        return Value(self, f"@{name}", "ptr")

    def variable(self, type_: str, value: Value | int) -> Variable:
        """Return a new variable with its first value."""
        variable = Variable(self, Value(self, self.emit_entry(f"alloca {type_}"), "ptr"), type_)
        variable.set(value)
        return variable

    def store(self, value: Value, pointer: Value, align: int = 0) -> None:
        """Store a value at a pointer. ``align`` is needed if the address may not be a multiple of the size."""
        self.do(f"store {value.type} {value.text}, ptr {pointer.text}{f', align {align}' if align else ''}")

    def copy_page(self, source: Value, target: Value) -> None:
        """Copy a page of memory to another place. Both pointers are to the beginning of a page."""
        pointers = ", ".join(f"ptr align {PAGE_SIZE} {pointer.text}" for pointer in (target, source))
        self.do(f"call void @llvm.memcpy.inline.p0.p0.i64({pointers}, i64 {PAGE_SIZE}, i1 false)")

    # -- control -------------------------------------------------------------------------------

    def _append(self, line: str) -> None:
        if self._ended and not line.endswith(":"):
            raise AssertionError(f"{self.header}: control does not come to {line.strip()}")
        super()._append(line)

    def label(self, name: str) -> None:
        super().label(name)
        self._ended = False

    def jump(self, label: str) -> None:
        """Go to a label."""
        self.do(f"br label %{label}")
        self._ended = True

    def split(self, condition: Value, then: str, otherwise: str, likely: bool | None = None) -> None:
        """Branch to one of two labels. ``likely`` says that the first is taken nearly always or, if False, nearly
        never.
        """
        hint = "" if likely is None else f", !prof !{int(likely)}"
        self.do(f"br i1 {self.value('i1', condition)}, label %{then}, label %{otherwise}{hint}")
        self._ended = True

    @contextmanager
    def when(self, condition: Value, likely: bool | None = None) -> Iterator[None]:
        """Execute the body if the condition holds."""
        then, after = self.new_label("then"), self.new_label("after")
        self.split(condition, then, after, likely)
        self.label(then)
        yield
        if not self._ended:
            self.jump(after)
        self.label(after)

    @contextmanager
    def repeat(self) -> Iterator[Loop]:
        """Execute the body again and again, until it leaves the loop."""
        loop = Loop(self, self.new_label("loop"), self.new_label("after"))
        self.jump(loop.head)
        self.label(loop.head)
        yield loop
        if not self._ended:
            self.jump(loop.head)
        self.label(loop.after)

    @contextmanager
    def count(self, start: Value | int, end: Value | int, step: int = 1, type_: str = "i32") -> Iterator[Value]:
        """Execute the body with each number from ``start`` up to ``end``, which is not included."""
        variable = self.variable(type_, start)
        with self.repeat() as loop:
            number = variable.get()
            with self.when(number.uge(end)):
                loop.leave()
            yield number
            variable.set(number + step)

    def ret(self, value: Value | None = None) -> None:
        """Return from the function."""
        self.do("ret void" if value is None else f"ret {value.type} {value.text}")
        self._ended = True

    def call(self, callee: str | Value, *arguments: Value, result: str = "void") -> Value:
        """Call a function of the image, by name or pointer. Functions that are not handlers have the C convention."""
        name = f"@{callee}" if isinstance(callee, str) else callee.text
        text = ", ".join(f"{argument.type} {argument.text}" for argument in arguments)
        if result == "void":
            self.do(f"call void {name}({text})")
            return Value(self, "", result)
        return Value(self, self.emit(f"call {result} {name}({text})"), result)

    def trailing_zeros(self, word: Value) -> Value:
        """Return the number of the lowest 1 of an i32 that is not 0."""
        return Value(self, self.emit(f"call i32 @llvm.cttz.i32(i32 {word}, i1 true)"), "i32")

    # -- CpuState ------------------------------------------------------------------------------

    @property
    def cpu(self) -> Value:
        """The pointer to CpuState, which is the first parameter of every function."""
        return self["cpu"]

    def native(self, name: str, element: int = 0) -> Value:
        """Return the pointer to a slot of CpuState's runtime part."""
        slot = NATIVE[name]
        return self.cpu.at(slot.offset + slot.size * element)

    def load_native(self, name: str, type_: str = "", element: int = 0) -> Value:
        """Load a slot of CpuState's runtime part, as an integer unless ``type_`` says otherwise."""
        size = NATIVE[name].size
        type_ = type_ or f"i{8 * size}"
        if _SIZES[type_] != size:
            raise TypeError(f"{name} has {size} bytes")
        return self.native(name, element).load(type_)

    def store_native(self, name: str, value: Value | int, element: int = 0) -> None:
        """Store to a slot of CpuState's runtime part."""
        size = NATIVE[name].size
        value = value if isinstance(value, Value) else self.value(f"i{8 * size}", value)
        if _SIZES[value.type] != size:
            raise TypeError(f"{name} has {size} bytes, and {value.text} is {value.type}")
        self.store(value, self.native(name, element))

    def state(self, name: str) -> Value:
        """Return the pointer to a word of the guest's state."""
        return self.cpu.at(LAYOUT[name].offset)

    def load_state(self, name: str) -> Value:
        """Load a word of the guest's state, an i32."""
        return self.state(name).load("i32")

    def store_pc(self, gva: Value) -> None:
        """Store to R15 the GVA at which the guest continues."""
        self.store(self.value("i32", gva), self.cpu.at(R15))

    def load_pc(self) -> Value:
        """Load R15, the GVA at which the guest continues."""
        return self.cpu.at(R15).load("i32")

    def is_user_mode(self) -> Value:
        """Return an i1: the guest is in user mode."""
        return (self.load_state("psr") & PSR_MODE).eq(int(Mode.USER))

    def page_flags_pointer(self, page: Value) -> Value:
        """Return the pointer to the flags (i8) of a guest physical page, by the page's number (i64)."""
        return self.load_native("page_flags", "ptr").at(page)

    def page_flags(self, gpa: Value) -> Value:
        """Load the flags (i8) of the page that contains a GPA (i64)."""
        return self.page_flags_pointer(gpa >> PAGE_SHIFT).load("i8")

    def exit(self, code: ExitCode, *arguments: Value | int) -> None:
        """Store the reason for the exit from native code, and its arguments, i64 each."""
        self.store_native("exit_kind", int(code))
        for number, argument in enumerate(arguments):
            self.store_native("exit_args", argument, number)


class HandlerBuilder(Builder):
    """A function with the signature of handlers, under construction."""

    def __init__(self, name: str) -> None:
        super().__init__(header(name), {name: type_ for type_, name in ARGUMENTS})

    def tail(self, callee: Value, **changed: Value | int) -> None:
        """Tail-call a handler, with some of the arguments replaced."""
        types = {name: type_ for type_, name in ARGUMENTS}
        arguments = {name: self.value(types[name], value).text for name, value in changed.items()}
        self.do(tail_call(callee.text, **arguments))
        self.ret()

    def tail_to(self, name: str, **changed: Value | int) -> None:
        """Tail-call a handler of the image by name."""
        self.tail(self.function(name), **changed)


def define(name: str, parameters: Mapping[str, str], result: str = "void", attributes: str = "") -> Builder:
    """Return a new function ``name(cpu, parameters...)`` with the C convention, whose body is still to be written."""
    return _define("", name, {"cpu": "ptr", **parameters}, result, attributes)


def define_preserving(name: str, parameters: Mapping[str, str], result: str) -> Builder:
    """Return a new function as :func:`define` does, which preserves nearly all registers. Regions call it: they use
    many.
    """
    return _define("preserve_mostcc ", name, {"cpu": "ptr", **parameters}, result, "")


def _define(convention: str, name: str, parameters: Mapping[str, str], result: str, attributes: str) -> Builder:
    text = ", ".join(f"{type_} %{parameter}" for parameter, type_ in parameters.items())
    line = f"define hidden {convention}{result} @{name}({text}) {attributes}".rstrip()
    return Builder(line, parameters)
