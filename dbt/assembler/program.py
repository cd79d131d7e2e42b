"""Assembling text to a flat program. The first pass gives each statement its address, the second one its bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from dbt.abi.addresses import Gva
from dbt.assembler.expressions import (
    SYMBOL,
    ExpressionError,
    UndefinedSymbol,
    Value,
    evaluate,
    evaluate_constant,
)
from dbt.assembler.instructions import InstructionError, encode, literal_operand, load_literal, short_form
from dbt.assembler.source import AssemblyError, Expander, Statement, split_operands

#: The most bytes that a program may have.
LARGEST_PROGRAM = 64 << 20
_SIZES = {
    ".byte": 1, ".hword": 2, ".short": 2, ".2byte": 2, ".word": 4, ".long": 4, ".int": 4, ".4byte": 4, ".inst": 4,
    ".quad": 8, ".8byte": 8,
}  # fmt: skip
#: The directives that mean nothing to a flat program of A32 code.
_IGNORED = {
    *(".text", ".arm", ".global", ".globl", ".extern", ".weak", ".local", ".hidden", ".type", ".size", ".syntax"),
    *(".cpu", ".arch", ".arch_extension", ".fpu", ".eabi_attribute", ".file", ".ident", ".func", ".endfunc", ".loc"),
    *(".fnstart", ".fnend", ".cantunwind", ".cfi_startproc", ".cfi_endproc"),
}
_OTHER_SECTIONS = (".data", ".bss", ".section", ".comm", ".lcomm", ".rodata", ".pushsection")
_NOP = bytes.fromhex("0000a0e1")  # mov r0, r0, which every processor has
_ESCAPES = {"n": 10, "t": 9, "b": 8, "f": 12, "r": 13}
_DOT = re.compile(r"(?<![\w.$])\.(?![\w.$])")


#: The address of a pool whose place is not known yet.
_NOT_PLACED = Gva(-1)


@dataclass(slots=True)
class _Pool:
    """A literal pool, with the words for ``ldr rd, =expression``: their address and, by key, their users and
    expressions.
    """

    gva: Gva = _NOT_PLACED
    entries: dict[tuple[str, int], tuple[Statement, str, Gva]] = field(default_factory=dict)


Bytes = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A statement with its address, and the function that makes its bytes once all symbols are known."""

    statement: Statement
    gva: Gva
    make: Bytes


def assemble_program(text: str, base: Gva) -> bytes:
    """Return the bytes of a program of A32 code in GNU syntax that is to run at ``base``. Raise AssemblyError."""
    return _Assembly(base).assemble(text)


class _Assembly:
    def __init__(self, base: Gva) -> None:
        self._base = base
        self._gva = base
        self._symbols: dict[str, Value] = {}
        self._labels: set[str] = set()
        self._pieces: list[_Piece] = []
        self._pool = _Pool()

    def assemble(self, text: str) -> bytes:
        expander = Expander(text, self._constant, self._symbols.__contains__)
        statements = iter(expander)
        last = Statement(0, "")
        while True:
            try:
                last = next(statements)
                self._lay_out(last)
            except StopIteration:
                break
            except (ExpressionError, InstructionError) as error:
                raise AssemblyError(str(error), last.line, last.text) from None
            if self._gva - self._base > LARGEST_PROGRAM or self._gva > 1 << 32:
                raise AssemblyError("the program is too large", last.line, last.text)
        self._end_pool(last)
        return self._make_bytes()

    def _make_bytes(self) -> bytes:
        made = bytearray()
        for piece in self._pieces:
            self._gva = piece.gva
            try:
                made += piece.make()
            except (ExpressionError, InstructionError) as error:
                raise AssemblyError(str(error), piece.statement.line, piece.statement.text) from None
        return bytes(made) + bytes(-len(made) % 4)

    def _lookup(self, name: str) -> Value:
        if name == ".":
            return Value(self._gva, True)
        if name not in self._symbols:
            text = f"{name.split('.')[2]}f or {name.split('.')[2]}b" if name.startswith(".local.") else name
            raise UndefinedSymbol(f"the symbol {text} is not defined")
        return self._symbols[name]

    def _constant(self, text: str) -> int:
        return evaluate_constant(text, self._lookup)

    # -- the first pass ----------------------------------------------------------------------------

    def _add(self, statement: Statement, size: int, make: Bytes) -> None:
        if size < 0 or size > LARGEST_PROGRAM:
            raise ExpressionError(f"{size} is no number of bytes that a program can have")
        self._pieces.append(_Piece(statement, self._gva, make))
        self._gva = Gva(self._gva + size)

    def _lay_out(self, statement: Statement) -> None:
        name = statement.name
        if statement.label:
            self._define_label(statement.label)
        elif not name.startswith("."):
            self._lay_out_instruction(statement)
        elif name in _SIZES:
            self._lay_out_numbers(statement, _SIZES[name])
        elif name in (".ascii", ".asciz", ".string"):
            data = b"".join(_string(part) + (b"" if name == ".ascii" else b"\0") for part in _operands(statement))
            self._add(statement, len(data), lambda: data)
        elif name in (".set", ".equ", ".equiv"):
            self._assign(statement)
        elif name in (".space", ".skip", ".zero", ".fill", ".org"):
            self._lay_out_space(statement)
        elif name in (".align", ".p2align", ".balign"):
            self._align(statement)
        elif name in (".ltorg", ".pool"):
            self._end_pool(statement)
        elif name not in _IGNORED and (name, statement.operands) not in ((".code", "32"), (".section", ".text")):
            raise ExpressionError(_why_not(statement))

    def _define_label(self, name: str) -> None:
        if name in self._symbols:
            raise ExpressionError(f"the symbol {name} is defined twice")
        self._labels.add(name)
        self._symbols[name] = Value(self._gva, True)

    def _assign(self, statement: Statement) -> None:
        parts = split_operands(statement.operands)
        if len(parts) != 2 or not re.fullmatch(SYMBOL, parts[0]):
            raise ExpressionError(f"{statement.name} takes a symbol and its value")
        name, expression = parts
        if name in self._labels or name == "." or (statement.name == ".equiv" and name in self._symbols):
            raise ExpressionError(f"the symbol {name} is defined twice")

        def assign() -> bytes:
            self._symbols[name] = evaluate(expression, self._lookup)
            return b""

        try:
            assign()
        except UndefinedSymbol:  # it depends on a later symbol, which the second pass knows
            self._symbols.pop(name, None)
        self._add(statement, 0, assign)

    def _lay_out_instruction(self, statement: Statement) -> None:
        name, operands = statement.name, statement.operands
        literal = literal_operand(name, operands)
        if literal is None:
            self._add(statement, 4, lambda: encode(name, operands, self._gva, self._lookup))
            return
        register, expression = literal
        value = self._known_constant(expression)
        short = None if value is None else short_form(name, register, value)
        if short is not None:
            instruction, _, rest = short.partition(" ")
            self._add(statement, 4, lambda: encode(instruction, rest, self._gva, self._lookup))
            return
        key = (expression, self._gva if _DOT.search(expression) else -1) if value is None else (str(value), -1)
        pool = self._pool
        pool.entries.setdefault(key, (statement, expression, self._gva))
        index = list(pool.entries).index(key)
        self._add(statement, 4, lambda: load_literal(name, register, self._gva, Gva(pool.gva + 4 * index)))

    def _known_constant(self, expression: str) -> int | None:
        """Return the value in 32 bits, if it is a constant by what is defined so far, else None."""
        try:
            value = evaluate(expression, self._lookup)
        except UndefinedSymbol:
            return None
        return None if value.is_address else _fit(value.number, 4)

    def _end_pool(self, statement: Statement) -> None:
        pool, self._pool = self._pool, _Pool()
        if not pool.entries:
            return
        padding = -self._gva % 4
        self._add(statement, padding, lambda: bytes(padding))
        pool.gva = self._gva
        for user, expression, gva in pool.entries.values():
            self._add(user, 4, lambda expression=expression, gva=gva: self._pool_word(expression, gva))  # type: ignore[misc]

    def _pool_word(self, expression: str, gva: Gva) -> bytes:
        self._gva = gva  # which is where "." is
        return _fit(evaluate(expression, self._lookup).number, 4).to_bytes(4, "little")

    # -- data --------------------------------------------------------------------------------------

    def _lay_out_numbers(self, statement: Statement, size: int) -> None:
        parts = _operands(statement)

        def make() -> bytes:
            made = bytearray()
            for part in parts:
                value = evaluate(part, self._lookup)
                if value.is_address and size < 4:
                    raise ExpressionError(f"{part} is an address, which has 32 bits")
                made += _fit(value.number, size).to_bytes(size, "little")
                self._gva = Gva(self._gva + size)
            return bytes(made)

        self._add(statement, size * len(parts), make)

    def _lay_out_space(self, statement: Statement) -> None:
        """Lay out ``.space size, byte``, ``.fill times, size, value`` or ``.org address, byte``."""
        parts = _operands(statement)
        if len(parts) > (3 if statement.name == ".fill" else 2):
            raise ExpressionError(f"{statement.name} is given too much")
        if statement.name == ".fill":
            times = self._constant(parts[0])
            width = self._constant(parts[1]) if len(parts) > 1 else 1
            if not 0 <= width <= 8:
                raise ExpressionError(f"{width} is no size from 0 to 8")
            unit = self._constant(parts[2]) if len(parts) > 2 else 0
            filling = (_fit(unit, 4) if unit < 0 else unit).to_bytes(8, "little")[:width]
        else:
            times = self._distance(parts[0]) if statement.name == ".org" else self._constant(parts[0])
            filling = bytes((_fit(self._constant(parts[1]) if len(parts) > 1 else 0, 1),))
        self._add(statement, times * len(filling), lambda: filling * times)

    def _distance(self, target: str) -> int:
        value = evaluate(target, self._lookup)
        distance = value.number - (self._gva if value.is_address else self._gva - self._base)
        if distance < 0:
            raise ExpressionError(".org does not go back")
        return distance

    def _align(self, statement: Statement) -> None:
        """Align to 2^n bytes (``.align n``, ``.p2align n``) or to n (``.balign n``), with NOPs between instructions."""
        parts = split_operands(statement.operands) or ["2" if statement.name != ".balign" else "4"]
        unit = self._constant(parts[0] or "0")
        if statement.name != ".balign":
            if not 0 <= unit <= 15:
                raise ExpressionError(f"{unit} is no alignment: it is a power of 2, from 0 to 15")
            unit = 1 << unit
        if unit < 0 or unit & (unit - 1):
            raise ExpressionError(f"{unit} is no alignment: it is not a power of 2")
        padding = -self._gva % (unit or 1)
        if len(parts) > 2 and parts[2] and padding > self._constant(parts[2]):
            padding = 0
        if len(parts) > 1 and parts[1]:
            data = bytes((_fit(self._constant(parts[1]), 1),)) * padding
        else:
            data = bytes(padding % 4) + _NOP * (padding // 4)
        self._add(statement, padding, lambda: data)


def _operands(statement: Statement) -> list[str]:
    parts = split_operands(statement.operands)
    if not parts or not all(parts):
        raise ExpressionError(f"{statement.name} lacks a value")
    return parts


def _fit(number: int, size: int) -> int:
    """Return the number as an unsigned one of ``size`` bytes. Raise ExpressionError if it does not fit."""
    bits = 8 * size
    if not -(1 << (bits - 1)) <= number < 1 << bits:
        raise ExpressionError(f"{number:#x} does not fit into {bits} bits")
    return number % (1 << bits)


def _string(text: str) -> bytes:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise ExpressionError(f"{text} is no text in quotes")

    def replace(found: re.Match[bytes]) -> bytes:
        code = found[1].decode()
        if code[0] in "xX":
            return bytes((int(code[1:], 16) & 0xFF,))
        return bytes((int(code, 8) & 0xFF,)) if code.isdigit() else bytes((_ESCAPES.get(code, ord(code)),))

    return re.sub(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]+|[ -~])", replace, text[1:-1].encode())


def _why_not(statement: Statement) -> str:
    if statement.name in _OTHER_SECTIONS:
        return f"{statement.name}: a flat program has one section, so put its data behind its code"
    if statement.name in (".thumb", ".code", ".thumb_func"):
        return f"{statement.name} {statement.operands}: the instruction set is A32".replace(" :", ":")
    return f"there is no directive {statement.name} here"
