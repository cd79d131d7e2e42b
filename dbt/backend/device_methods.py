"""Compiling the methods of devices: the registers of a device as native code, from the Python that defines them.

A class of :data:`dbt.devices.shared.CLASSES` is written in a part of Python that both can execute. Its state is words
at fixed places of a block, so a method becomes a function ``Class_method(cpu, self, arguments...)`` of 64-bit integers.
What it can contain is what :class:`_Method` has a rule for; anything else is an error of the build, with file and line.

- A number has 64 bits and a sign. A division is one of numbers that are not negative.
- ``and``, ``or`` and comparisons give truth values, not operands. None is :data:`dbt.devices.shared.NONE`.
- ``self.dma`` is RAM, of which a method makes sure that it is there and has no code. ``self.part`` is another object of
  such a class, with fields, properties and methods.
- ``read_word``, ``write_word`` and ``answer_hot`` are the *accesses*. They return ``{i64, i1}``: the value, and whether
  the access was made. An access leaves for Python, having changed nothing, where it would call a method that is marked
  :func:`dbt.devices.shared.in_python`, ask for input that may be there, or make room for a byte in a full ring.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from types import FunctionType
from typing import Any

from dbt.abi.layout import PAGE_HAS_CODE, PAGE_LOGGED, PAGE_RAM, PAGE_WRITABLE
from dbt.abi.timeline import ALARM_WORDS, FIRST_ALARM, ORDER, SCHEDULED, TICK, UNSET
from dbt.backend.builder import Builder, Value, Variable, define
from dbt.devices.output import RING_BYTES
from dbt.devices.shared import NONE, WORD_BYTES, WORDS, Place, layout_of

ACCESSES = ("read_word", "write_word", "answer_hot")
#: What an access returns, and what it returns if it leaves.
ANSWER = "{i64, i1}"
_BINARY: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a - a // b * b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
}
#: The methods of RAM that access it, and the type of what they access.
_RAM_LOADS = {"byte": "i8", "word": "i32"}
_RAM_STORES = {"put_byte": "i8", "put_word": "i32"}
_PLAIN_FLAGS = PAGE_RAM | PAGE_WRITABLE
_COMPARE: dict[type[ast.cmpop], Callable[[Value, Value], Value]] = {
    ast.Eq: lambda a, b: a.eq(b),
    ast.NotEq: lambda a, b: a.ne(b),
    ast.Is: lambda a, b: a.eq(b),
    ast.IsNot: lambda a, b: a.ne(b),
    ast.Lt: lambda a, b: a.slt(b),
    ast.Gt: lambda a, b: b.slt(a),
    ast.LtE: lambda a, b: ~b.slt(a),
    ast.GtE: lambda a, b: ~a.slt(b),
}


class NotNative(TypeError):
    """Raised for Python that has no rule here. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A method as it is defined: the class that has it, its syntax, and the names that it can see."""

    owner: type
    tree: ast.FunctionDef
    names: dict[str, Any]
    file: str
    line: int


def _find(cls: type, name: str, after: type | None = None) -> tuple[type, Any]:
    """Return the class that defines an attribute, and the attribute; of those behind ``after``, if that is given."""
    order = cls.__mro__
    for owner in order if after is None else order[order.index(after) + 1 :]:
        if name in owner.__dict__:
            return owner, owner.__dict__[name]
    raise AttributeError(f"{cls.__name__} has no {name}")


def _source(owner: type, function: FunctionType) -> _Source:
    text, line = inspect.getsourcelines(function)
    (tree,) = ast.parse(textwrap.dedent("".join(text))).body
    assert isinstance(tree, ast.FunctionDef)
    return _Source(owner, tree, vars(sys.modules[function.__module__]), inspect.getfile(function), line - 1)


class DeviceMethods:
    """The functions that were asked for, and those that they call."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def function(self, cls: type, name: str, after: type | None = None) -> str:
        """Return the name of the function for a method, which is compiled if that has not been done."""
        owner, found = _find(cls, name, after)
        label = f"{cls.__name__}_{name}" + ("" if after is None else f"_of_{owner.__name__}")
        if label not in self._texts:
            self._texts[label] = ""  # so that a method may call itself
            method: Any = found.fget if isinstance(found, property) else found
            self._texts[label] = _Method(self, cls, label, _source(owner, method)).text()
        return label

    def text(self) -> str:
        """Return the definitions of all functions."""
        return "".join(self._texts.values())


class _Method:
    """Compiles one method for devices of the class ``cls``."""

    def __init__(self, methods: DeviceMethods, cls: type, label: str, source: _Source) -> None:
        self._methods, self._cls, self._source = methods, cls, source
        self._is_access = source.tree.name in ACCESSES
        self._has_effects = self._has_asked = False
        parameters = [each.arg for each in source.tree.args.args[1:]]
        result = ANSWER if self._is_access else "i64"
        # No name of Python's is the name of a block.
        self._f = define(label, {"self": "ptr", **{f"_{name}": "i64" for name in parameters}}, result)
        self._constants: dict[str, Any] = {}
        self._locals: dict[str, Variable] = {name: self._f.variable("i64", self._f[f"_{name}"]) for name in parameters}

    def text(self) -> str:
        if self._is_access:
            self._leave_if_output_is_full()
        if not self._block(self._source.tree.body):
            self._return(self._f.value("i64", 0))
        return self._f.text()

    def _refuse(self, node: ast.AST, why: str = "has no rule") -> NotNative:
        line = self._source.line + getattr(node, "lineno", 1)
        return NotNative(f"{self._source.file}:{line}: {type(node).__name__} {why} in methods that are compiled")

    # -- leaving -------------------------------------------------------------------------------

    def _return(self, value: Value) -> None:
        f = self._f
        if not self._is_access:
            f.ret(value)
            return
        pair = f.emit(f"insertvalue {ANSWER} {{i64 0, i1 true}}, i64 {value}, 0")
        f.ret(Value(f, pair, ANSWER))

    def _leave(self, node: ast.AST) -> None:
        """Leave for Python, which makes the whole access."""
        if not self._is_access or self._has_effects:
            raise self._refuse(node, "leaves for Python, which only an access may before it has changed anything,")
        self._f.ret(Value(self._f, "zeroinitializer", ANSWER))

    def _leave_if_output_is_full(self) -> None:
        for place in layout_of(self._cls).values():
            if place.kind == "Wiring[Transmit]" and self._source.tree.name == "write_word":
                ring = self._word(place).load("ptr")
                with self._f.when(ring.ne(0)), self._f.when(ring.load("i64").eq(RING_BYTES), likely=False):
                    self._leave(self._source.tree)

    # -- statements ----------------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt]) -> bool:
        """Compile statements. Return True if control does not come to their end."""
        for statement in statements:
            rule = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if rule is None:
                raise self._refuse(statement)
            if rule(statement):
                return True
        return False

    def _do_pass(self, _: ast.Pass) -> bool:
        return False

    def _do_return(self, node: ast.Return) -> bool:
        if node.value is not None and self._leaves(node.value):
            self._leave(node)
        else:
            self._return(self._f.value("i64", 0) if node.value is None else self._value(node.value))
        return True

    def _do_expr(self, node: ast.Expr) -> bool:
        if isinstance(node.value, ast.Constant):  # a docstring
            return False
        if self._leaves(node.value):
            self._leave(node)
            return True
        self._value(node.value)
        return False

    def _leaves(self, node: ast.expr) -> bool:
        """Return True for a call of a method that is marked as Python's."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_self(node.func.value)):
            return False
        name = node.func.attr
        return name not in self._fields and hasattr(_find(self._cls, name)[1], "in_python")

    def _do_assign(self, node: ast.Assign) -> bool:
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            values = [self._value(each) for each in node.value.elts]
            for target, value in zip(node.targets[0].elts, values, strict=True):
                self._assign(target, value)
            return False
        value = self._value(node.value)
        for target in node.targets:
            self._assign(target, value)
        return False

    def _do_augassign(self, node: ast.AugAssign) -> bool:
        target = node.target
        self._assign(target, _BINARY[type(node.op)](self._value(target), self._value(node.value)))
        return False

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            if target.id not in self._locals:
                self._locals[target.id] = self._f.variable("i64", 0)
            self._locals[target.id].set(value)
        elif isinstance(target, ast.Attribute | ast.Subscript):
            self._f.store(value, self._place_of(target))
            self._has_effects = True
        else:
            raise self._refuse(target)

    def _do_if(self, node: ast.If) -> bool:
        return self._branches([(lambda: self._truth(node.test), node.body)], node.orelse)

    def _do_match(self, node: ast.Match) -> bool:
        subject = self._value(node.subject)
        arms: list[tuple[Callable[[], Value], list[ast.stmt]]] = []
        for case in node.cases:
            pattern, guard = case.pattern, case.guard
            if isinstance(pattern, ast.MatchAs) and pattern.pattern is None and pattern.name is None:
                if guard is None:
                    return self._branches(arms, case.body)
                arms.append((lambda guard=guard: self._truth(guard), case.body))  # type: ignore[misc]
                continue
            patterns = pattern.patterns if isinstance(pattern, ast.MatchOr) else [pattern]
            if guard is not None or not all(isinstance(each, ast.MatchValue) for each in patterns):
                raise self._refuse(pattern)
            values = [each.value for each in patterns if isinstance(each, ast.MatchValue)]
            arms.append((lambda values=values: self._is_one_of(subject, values), case.body))  # type: ignore[misc]
        return self._branches(arms, [])

    def _is_one_of(self, subject: Value, values: list[ast.expr]) -> Value:
        found = subject.eq(self._value(values[0]))
        for value in values[1:]:
            found |= subject.eq(self._value(value))
        return found

    def _branches(self, arms: list[tuple[Callable[[], Value], list[ast.stmt]]], otherwise: list[ast.stmt]) -> bool:
        """Compile an if with elifs and else. Return True if control does not come to the end of any."""
        f, before, effects, all_end = self._f, self._has_effects, self._has_effects, True
        after = f.new_label("done")
        for condition, body in arms:
            then, next_ = f.new_label("case"), f.new_label("else")
            f.split(condition(), then, next_)
            f.label(then)
            self._has_effects = before
            if not self._block(body):
                f.jump(after)
                all_end = False
                effects |= self._has_effects
            f.label(next_)
        self._has_effects = before
        if not self._block(otherwise):
            f.jump(after)
            all_end = False
        self._has_effects |= effects
        if not all_end:
            f.label(after)
        return all_end

    def _do_for(self, node: ast.For) -> bool:
        loop = node.iter
        if isinstance(loop, ast.Call) and isinstance(loop.func, ast.Name) and loop.func.id == "range":
            assert isinstance(node.target, ast.Name)
            (end,) = loop.args
            with self._f.count(0, self._value(end), type_="i64") as number:
                self._assign(node.target, number)
                if self._block(node.body):
                    raise self._refuse(node, "has a body that ends the loop")
            return False
        for values in self._constant(loop):  # over a constant: unrolled
            names = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            for name, value in zip(names, values if len(names) > 1 else (values,), strict=True):
                assert isinstance(name, ast.Name)
                self._constants[name.id] = value
            self._block(node.body)
        return False

    def _do_while(self, node: ast.While) -> bool:
        with self._f.repeat() as loop:
            with self._f.when(~self._truth(node.test)):
                loop.leave()
            if self._block(node.body):
                raise self._refuse(node, "has a body that ends the loop")
        return False

    # -- expressions ---------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Value:
        """Return an expression's value, an i64."""
        f = self._f
        match node:
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                return _BINARY[type(op)](self._value(left), self._value(right))
            case ast.UnaryOp(ast.Invert(), operand):
                return ~self._value(operand)
            case ast.UnaryOp(ast.USub(), operand):
                return f.value("i64", 0) - self._value(operand)
            case ast.UnaryOp(ast.Not()) | ast.Compare() | ast.BoolOp():
                return self._truth(node).to("i64")
            case ast.IfExp(test, body, orelse):
                return self._choose(self._truth(test), lambda: self._value(body), lambda: self._value(orelse))
            case ast.Constant(value) if value is None or isinstance(value, int):
                return f.value("i64", NONE if value is None else int(value))
            case ast.Name(name) if name in self._locals:
                return self._locals[name].get()
            case ast.Name() if isinstance(self._constant(node), int):
                return f.value("i64", int(self._constant(node)))
            case ast.Subscript(ast.Name(), index):
                return self._look_up(dict(enumerate(self._constant(node.value))), self._value(index), 0)
            case ast.Attribute() | ast.Subscript():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
        raise self._refuse(node)

    def _truth(self, node: ast.expr) -> Value:
        """Return whether an expression is true, an i1."""
        match node:
            case ast.UnaryOp(ast.Not(), operand):
                return ~self._truth(operand)
            case ast.BoolOp(op, values):
                return self._junction(isinstance(op, ast.And), values)
            case ast.Compare(left, (ast.In(),), (ast.Name() as names,)):
                return self._is_one_of(
                    self._value(left), [ast.Constant(each) for each in sorted(self._constant(names))]
                )
            case ast.Compare(left, (ast.NotIn(),), names_):
                return ~self._truth(ast.Compare(left, [ast.In()], names_))
            case ast.Compare(left, operators, comparators):
                operands = [self._value(each) for each in (left, *comparators)]
                found = self._f.value("i1", 1)
                for number, operator in enumerate(operators):
                    found &= _COMPARE[type(operator)](operands[number], operands[number + 1])
                return found
        return self._value(node).ne(0)

    def _junction(self, is_and: bool, operands: list[ast.expr]) -> Value:
        """Return an ``and`` or an ``or``. An operand that does not matter is not evaluated."""
        f = self._f
        found, after = f.variable("i1", self._truth(operands[0])), f.new_label("known")
        for operand in operands[1:]:
            more = f.new_label("more")
            value = found.get()
            f.split(value if is_and else ~value, more, after)
            f.label(more)
            found.set(self._truth(operand))
        f.jump(after)
        f.label(after)
        return found.get()

    def _choose(self, condition: Value, first: Callable[[], Value], second: Callable[[], Value]) -> Value:
        f = self._f
        found = f.variable("i64", 0)
        then, otherwise, after = (f.new_label(name) for name in ("then", "else", "chosen"))
        f.split(condition, then, otherwise)
        for label, value in ((then, first), (otherwise, second)):
            f.label(label)
            found.set(value())
            f.jump(after)
        f.label(after)
        return found.get()

    def _constant(self, node: ast.expr) -> Any:
        """Return the value of a name of the module, or of a variable of a loop that is unrolled."""
        if isinstance(node, ast.Name):
            if node.id in self._constants:
                return self._constants[node.id]
            if node.id in self._source.names:
                return self._source.names[node.id]
        raise self._refuse(node, "is not a constant of the module")

    def _look_up(self, table: dict[int, int], key: Value, default: int) -> Value:
        found = self._f.value("i64", default)
        for each, value in table.items():
            found = key.eq(each).choose(self._f.value("i64", value), found)
        return found

    # -- fields --------------------------------------------------------------------------------

    @property
    def _fields(self) -> dict[str, Place]:
        return dict(layout_of(self._cls))

    def _word(self, place: Place, number: int | Value = 0) -> Value:
        first = self._f["self"].at(WORD_BYTES * place.first)
        return first if isinstance(number, int) and not number else first.element("i64", number)

    def _place_of(self, node: ast.Attribute | ast.Subscript) -> Value:
        """Return the pointer to a field, or to an element of one that is a list."""
        index: int | Value = 0
        if isinstance(node, ast.Subscript):
            index = self._value(node.slice)
            assert isinstance(node.value, ast.Attribute)
            node = node.value
        if not _is_self(node.value) or node.attr not in self._fields:
            raise self._refuse(node, f"({node.attr}) is no field")
        place = self._fields[node.attr]
        if place.is_apart:
            return self._word(place).load("ptr").element("i64", index)
        return self._word(place, index)

    def _attribute(self, node: ast.Attribute | ast.Subscript) -> Value:
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Attribute):
                return self._attribute_of(node, node.value)
            if _is_self(node.value) and node.attr not in self._fields:
                return self._call_method(self._cls, self._f["self"], node.attr, [])
        return self._place_of(node).load("i64")

    def _attribute_of(self, node: ast.Attribute, target: ast.Attribute) -> Value:
        """Return an attribute of what a field leads to."""
        if (part := self._part(target)) is not None:
            cls, here = part
            if node.attr not in layout_of(cls):
                return self._call_method(cls, here, node.attr, [])
            return here.at(WORD_BYTES * layout_of(cls)[node.attr].first).load("i64")
        place = self._fields.get(target.attr) if _is_self(target.value) else None
        if place is None or place.kind != "Wiring[Time]":
            raise self._refuse(node)
        if node.attr == "ticks_per_second":
            return self._word(place).load("i64")
        if node.attr != "now":
            raise self._refuse(node)
        return now(self._f)

    def _part(self, node: ast.expr) -> tuple[type, Value] | None:
        """Return class and block of another object whose methods are compiled, to which fields lead; else None."""
        if not isinstance(node, ast.Attribute):
            return None
        cls, here = (self._cls, self._f["self"]) if _is_self(node.value) else self._part(node.value) or (None, None)
        place = None if cls is None else layout_of(cls).get(node.attr)
        if place is None or here is None or place.kind in WORDS or "[list[" in place.kind:
            return None
        found = vars(sys.modules[cls.__module__])[place.kind.partition("[")[2].rstrip("]")]
        return found, here.at(WORD_BYTES * place.first).load("ptr")

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> Value:
        arguments = node.args
        match node.func:
            case ast.Name("int" | "bool"):
                return self._truth(arguments[0]).to("i64") if node.func.id == "bool" else self._value(arguments[0])
            case ast.Name("len"):
                return self._length(node, arguments[0])
            case ast.Name("room_of"):
                return self._room(node, arguments[0])
            case ast.Name("max" | "min" as name):
                first, second = (self._value(each) for each in arguments)
                less = first.slt(second)
                return less.choose(second, first) if name == "max" else less.choose(first, second)
            case ast.Attribute(number, "bit_length"):
                found = self._f.emit(f"call i64 @llvm.ctlz.i64(i64 {self._value(number)}, i1 false)")
                return self._f.value("i64", 64) - Value(self._f, found, "i64")
            case ast.Attribute(ast.Name() as table, "get") if not _is_self(table):
                key, default = arguments
                assert isinstance(default, ast.Constant) and isinstance(default.value, int)
                return self._look_up(self._constant(table), self._value(key), default.value)
            case ast.Attribute(target, name):
                return self._call_attribute(node, target, name, [self._value(each) for each in arguments])
        raise self._refuse(node)

    def _call_attribute(self, node: ast.Call, target: ast.expr, name: str, arguments: list[Value]) -> Value:
        if _is_self(target) and name in self._fields:
            return self._call_wiring(node, self._fields[name], arguments)
        if _is_self(target) and _annotation(self._cls, name).startswith("Wiring[Callable["):
            if self._has_asked:
                return self._f.value("i64", 0)
            raise self._refuse(node, f"of {name}, before which no input was asked for, has no rule")
        if _is_self(target) and hasattr(_find(self._cls, name)[1], "asks_for_input"):
            return self._ask_for_input(node)
        if _is_self(target):
            return self._call_method(self._cls, self._f["self"], name, arguments)
        if (part_ := self._part(target)) is not None:
            return self._call_method(*part_, name, arguments)
        match target:
            case ast.Attribute(ast.Name("self"), wiring) if _annotation(self._cls, wiring) == "Wiring[Arguments]":
                return self._locate_argument(node, name, arguments)
            case ast.Attribute(ast.Name("self"), ram) if _annotation(self._cls, ram) == "Wiring[Dma]":
                return self._access_ram(node, name, arguments)
            case ast.Attribute(ast.Name("self"), alarm) if self._fields[alarm].kind == "Wiring[Alarm]":
                return self._set_alarm(name, self._fields[alarm], arguments)
            case ast.Subscript(ast.Attribute(ast.Name("self"), parts)) if "[list[" in self._fields[parts].kind:
                part = self._source.names[self._fields[parts].kind.partition("[list[")[2].rstrip("]")]
                return self._call_method(part, self._place_of(target).load("ptr"), name, arguments)
            case ast.Call(ast.Name("super")):
                return self._call_access_of_base(node, name, arguments)
        raise self._refuse(node)

    def _length(self, node: ast.Call, of: ast.expr) -> Value:
        """Return the number of elements of a list that may have fewer than there is room for."""
        place = self._fields.get(of.attr) if isinstance(of, ast.Attribute) and _is_self(of.value) else None
        if place is None or place.words == place.elements:
            raise self._refuse(node)
        return self._word(place, self._f.value("i64", place.elements)).load("i64")

    def _room(self, node: ast.Call, of: ast.expr) -> Value:
        """Return how many bytes a ring has room for."""
        place = self._fields.get(of.attr) if isinstance(of, ast.Attribute) and _is_self(of.value) else None
        if place is None or place.kind != "Wiring[Transmit]":
            raise self._refuse(node)
        room, ring = self._f.variable("i64", RING_BYTES), self._word(place).load("ptr")
        with self._f.when(ring.ne(0)):
            room.set(self._f.value("i64", RING_BYTES) - ring.load("i64"))
        return room.get()

    def _locate_argument(self, node: ast.Call, name: str, arguments: list[Value]) -> Value:
        """Return the GPA of an argument of a hypercall: see :meth:`dbt.hypervisor.xen.arguments.Arguments.place`."""
        if name != "place":
            raise self._refuse(node)
        return self._f.call("locate_argument", self._f.cpu, *arguments, result="i64")

    def _access_ram(self, node: ast.Call, name: str, arguments: list[Value]) -> Value:
        """Access RAM as :class:`dbt.memory.dma.Dma` does. The page of a store comes into the dirty log, and the word is
        decoded again if it was code.
        """
        f, address = self._f, arguments[0]
        host = f.load_native("ram_host", "ptr").at(address)
        if name == "is_plain":
            flags = f.page_flags(address) & (_PLAIN_FLAGS | PAGE_HAS_CODE)
            return flags.eq(_PLAIN_FLAGS).to("i64")
        if name == "takes_words":
            covered = f.call("is_covered", f.cpu, address, result="i1")
            return ((f.page_flags(address) & _PLAIN_FLAGS).eq(_PLAIN_FLAGS) & ~covered).to("i64")
        if name == "first_used":
            return f.call("first_used", f.cpu, address, arguments[1], result="i64")
        if name in _RAM_LOADS:
            return host.load(_RAM_LOADS[name], align=1).to("i64")
        if name not in _RAM_STORES:
            raise self._refuse(node)
        self._has_effects = True
        with f.when(~f.page_flags(address).has(PAGE_LOGGED), likely=False):
            f.call("log_page", f.cpu, address)
        with f.when(f.page_flags(address).has(PAGE_HAS_CODE), likely=False):
            f.call("invalidate", f.cpu, address)
            f.call("note_store", f.cpu, address)
        f.store(arguments[1].to(_RAM_STORES[name]), host, align=1)
        return f.value("i64", 0)

    def _call_method(self, cls: type, device: Value, name: str, arguments: list[Value]) -> Value:
        self._has_effects |= not isinstance(_find(cls, name)[1], property)
        return self._f.call(self._methods.function(cls, name), self._f.cpu, device, *arguments, result="i64")

    def _call_access_of_base(self, node: ast.Call, name: str, arguments: list[Value]) -> Value:
        """Make the access as the base class does, and leave if that leaves."""
        f = self._f
        function = self._methods.function(self._cls, name, after=self._source.owner)
        answer = f.call(function, f.cpu, f["self"], *arguments, result=ANSWER)
        with f.when(~Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 1"), "i1")):
            self._leave(node)
        self._has_effects = True
        return Value(f, f.emit(f"extractvalue {ANSWER} {answer}, 0"), "i64")

    def _call_wiring(self, node: ast.Call, place: Place, arguments: list[Value]) -> Value:
        f = self._f
        self._has_effects = True
        match place.kind:
            case "Wiring[Line]":
                f.call("drive_line", f.cpu, self._word(place), *arguments)
            case "Wiring[Sample]":
                return f.call("sample_level", f.cpu, self._word(place), result="i64")
            case "Wiring[Transmit]":
                ring = self._word(place).load("ptr")
                with f.when(ring.ne(0)):  # else it is not connected
                    count = ring.load("i64")
                    f.store(arguments[0].to("i8"), ring.at(count + WORD_BYTES))
                    f.store(count + 1, ring)
            case _:
                raise self._refuse(node)
        return f.value("i64", 0)

    def _ask_for_input(self, node: ast.Call) -> Value:
        """Leave if there may be input, about which Python asks. Otherwise nothing comes in this access."""
        f = self._f
        self._has_asked = True
        with f.when(~now(f).slt(f.load_native("input_due")), likely=False):
            self._leave(node)
        return f.value("i64", 0)

    def _set_alarm(self, how: str, place: Place, arguments: list[Value]) -> Value:
        f = self._f
        self._has_effects = True
        words = f.load_native("timeline", "ptr")
        number = self._word(place).load("i64")
        record = words.at(WORD_BYTES * FIRST_ALARM).element("i64", number * ALARM_WORDS)
        if how == "cancel":
            f.store(f.value("i64", UNSET), record.at(WORD_BYTES * TICK))
            return f.value("i64", 0)
        scheduled = words.at(WORD_BYTES * SCHEDULED)
        order = scheduled.load("i64")
        f.store(arguments[0], record.at(WORD_BYTES * TICK))
        f.store(order, record.at(WORD_BYTES * ORDER))
        f.store(order + 1, scheduled)
        return f.value("i64", 0)


def now(f: Builder) -> Value:
    """Return the tick of the instruction that is being executed, given that CpuState has the budget before it."""
    return f.load_native("tick_end") - f.load_native("budget")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _annotation(cls: type, name: str) -> str:
    """Return the annotation of a field, or an empty text if there is no such field."""
    return next((str(each.type) for each in fields(cls) if each.name == name), "")


def class_called(name: str) -> type:
    """Return the class of a name that has its module's name in front, after importing that."""
    import importlib

    module, _, cls_name = name.rpartition(".")
    cls: type = getattr(importlib.import_module(module), cls_name)
    return cls


def classes() -> Iterator[tuple[int, type]]:
    """Yield number and class of everything that is compiled, after importing it."""
    from dbt.devices.shared import CLASSES, class_number

    for cls in map(class_called, CLASSES):
        yield class_number(cls), cls
