"""From uops to Python: the functions that execute one instruction word, or a routine of the architecture.

Each word's uops are written down once as a Python function, one line per uop (:func:`source_of` shows
them), and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from dbt.abi.exits import (
    Breakpoint,
    HypervisorCall,
    LeaveGuest,
    SecureMonitorCall,
    SupervisorCall,
    Undefined,
)
from isa.arm.a32 import DECODER
from isa.arm.architecture import ROUTINES
from isa.arm.operands import ALWAYS
from isa.arm.state import LAYOUT, SCTLR_A
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.operations import PURE
from isa.ir.sensitivity import makes_callouts
from isa.ir.table import Stage, require_rows
from isa.ir.uop import Access, Uop

#: Words whose Python function is kept; a kernel's boot executes some ten thousands.
MEMOISED_WORDS = 1 << 16

#: A function that executes a word. It takes the registers, the state words, ``load``, ``store``, the callouts and the
#: instruction's address, and returns the address of the next instruction.
Step = Callable[[Any, Any, Callable[..., int], Callable[..., None], Any, int], int]


@lru_cache(MEMOISED_WORDS)
def compile_word(word: int, architecture: int) -> Step:
    """Return the Python function that executes ``word`` on a processor of that architecture."""
    step: Step = _define(source_of(word, architecture), "step")
    return step


@lru_cache
def compile_routine(name: str) -> Callable[..., Any]:
    """Return a routine as a function of the registers, the state words, the guest's memory and its parameters."""
    routine = ROUTINES[name]
    lines = [f"def {name}({', '.join(['r', 'words', 'memory', *routine.parameters])}):", "    temp = [0] * 16"]
    function: Callable[..., Any] = _define("\n".join([*lines, *_Writer().lines(routine.block(), "    "), ""]), name)
    return function


def _define(text: str, name: str) -> Any:
    namespace: dict[str, Any] = dict(_GLOBALS)
    exec(text, namespace)
    return namespace[name]


def source_of(word: int, architecture: int) -> str:
    """Return the Python text that executes ``word``."""
    insn = DECODER.decode(word)
    if insn is None or insn.since > architecture:
        body = ["    raise leave(undefined(pc))"]
    else:
        block = insn.record_word(word)
        body = list(_Writer().lines(block, "    "))
        if makes_callouts(block):
            _count_place(body, "cond" in insn.pattern.fields and word >> 28 != ALWAYS)
    lines = ["def step(r, words, load, store, callouts, pc):"]
    if any("temp[" in line for line in body):
        lines.append("    temp = [0] * 16")
    return "\n".join([*lines, *body, "    return pc + 4 & 0xFFFFFFFF", ""])


def _count_place(body: list[str], conditional: bool) -> None:
    """Count the execution of a sensitive instruction, where its condition holds."""
    place = next(number for number, line in enumerate(body, 1) if line.startswith("    if ")) if conditional else 0
    body.insert(place, f"{'    ' * (2 if conditional else 1)}callouts.count_place()")


class _Writer:
    """Writes uops as lines of Python; every value is a local variable ``v<n>`` or a literal."""

    def __init__(self) -> None:
        self._names: dict[Uop, str] = {}

    def lines(self, block: list[Uop], indent: str) -> Iterator[str]:
        if not block:
            yield f"{indent}pass"
        for uop in block:
            args = [self._operand(arg) for arg in uop.args]
            if uop.op in PURE:
                yield f"{indent}{self._new(uop)} = {_pure(uop, args)}"
            elif uop.op == "when":
                yield f"{indent}if {args[0]}:"
                yield from self.lines(uop.body, indent + "    ")
            elif uop.op == "for_each_bit":
                name = self._new(uop)
                yield f"{indent}for {name}_ordinal, {name}_index in enumerate(bits({args[0]})):"
                yield from self.lines(uop.body, indent + "    ")
            else:
                if uop.op == "callout_value":
                    yield f"{indent}callouts.count({str(uop.attr)!r}, pc)"
                text = _TEXT[uop.op](uop, args)
                yield indent + (f"{self._new(uop)} = {text}" if uop.width else text)

    def _new(self, uop: Uop) -> str:
        return self._names.setdefault(uop, f"v{len(self._names)}")

    def _operand(self, uop: Uop) -> str:
        if uop.op == "const":
            return f"{uop.attr:#x}"
        if uop.op in ("bit_index", "bit_ordinal"):
            return self._names[uop.args[0]] + uop.op.removeprefix("bit")
        return self._names[uop]


def _pure(uop: Uop, args: list[str]) -> str:
    """Return the text of a pure operation by its definition in :data:`PURE`, reduced to the width of the result."""
    width = uop.args[1].width if uop.op == "select" else uop.args[0].width
    return f"pure_{uop.op}({', '.join(args)}, {width}) & {(1 << uop.width) - 1:#x}"


def _state_index(uop: Uop) -> int:
    assert isinstance(uop.attr, str)
    return LAYOUT[uop.attr].index


def _load(uop: Uop, args: list[str]) -> str:
    access = uop.attr
    assert isinstance(access, Access)
    text = f"load({args[0]}, {access.size}, pc, {_checked(access)}, {access.user})"
    return f"pure_sext({text}, {access.size * 8}) & 0xFFFFFFFF" if access.signed else text


def _store(uop: Uop, args: list[str]) -> str:
    access = uop.attr
    assert isinstance(access, Access)
    return f"store({args[0]}, {access.size}, {args[1]}, pc, {_checked(access)}, {access.user})"


def _checked(access: Access) -> str:
    """Return the text that says whether the address must be aligned: always, or if SCTLR.A is set (A3.2.1)."""
    return "True" if access.aligned else f"bool(words[{LAYOUT['sctlr'].index}] & {SCTLR_A})"


def _exception(uop: Uop, args: list[str]) -> str:
    assert isinstance(uop.attr, InsnException)
    exit_ = uop.attr.name.lower()
    return f"raise leave({exit_}(pc{'' if uop.attr is InsnException.UNDEFINED else ', ' + args[0]}))"


def _callout(uop: Uop, args: list[str]) -> str:
    """Return the text of a callout. One that is defined in uops is only counted, as its uops follow."""
    assert isinstance(uop.attr, Callout)
    name = uop.attr.name
    count = f"callouts.count({name!r}, pc)"
    return count if uop.attr.definition is not None else f"{count}; callouts.{name}({', '.join(['pc', *args])})"


def _callout_value(uop: Uop, args: list[str]) -> str:
    """Return the text of a callout that has a result, without its count."""
    return f"callouts.{uop.attr}({', '.join(['pc', *args])})"


#: What each uop that is neither pure nor nested is in Python.
_TEXT: dict[str, Callable[[Uop, list[str]], str]] = {
    "get_reg": lambda uop, args: f"r[{args[0]}]",
    "set_reg": lambda uop, args: f"r[{args[0]}] = {args[1]}",
    "pc": lambda uop, args: f"pc + {uop.attr} & 0xFFFFFFFF",
    "get": lambda uop, args: f"words[{_state_index(uop)}]",
    "set": lambda uop, args: f"words[{_state_index(uop)}] = {args[0]}",
    "load": _load,
    "store": _store,
    "get_temp": lambda uop, args: f"temp[{args[0]}]",
    "set_temp": lambda uop, args: f"temp[{args[0]}] = {args[1]}",
    "branch": lambda uop, args: f"return {args[0]} & 0xFFFFFFFC",
    "exception": _exception,
    "callout": _callout,
    "callout_value": _callout_value,
    "get_at": lambda uop, args: f"words[{_state_index(uop)} + {args[0]}]",
    "set_at": lambda uop, args: f"words[{_state_index(uop)} + {args[0]}] = {args[1]}",
    "param": lambda uop, args: str(uop.attr),
    "result": lambda uop, args: f"return {args[0]}",
    "in_ram": lambda uop, args: f"memory.in_ram({args[0]})",
    "load_physical": lambda uop, args: f"memory.load_physical({args[0]})",
}
require_rows("the evaluator", {*_TEXT, "when", "for_each_bit"}, Stage.WORD | Stage.ROUTINE)


def _bits(mask: int) -> list[int]:
    """Return the numbers of the bits of ``mask`` that are 1, lowest first."""
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


_GLOBALS: dict[str, object] = {
    **{f"pure_{name}": fold for name, fold in PURE.items()},
    "bits": _bits,
    "leave": LeaveGuest,
    "undefined": Undefined,
    "supervisor_call": SupervisorCall,
    "breakpoint": Breakpoint,
    "hypervisor_call": HypervisorCall,
    "secure_monitor_call": SecureMonitorCall,
}
