"""Agent expressions: the bytecode in which gdb sends the conditions of breakpoints.

See the appendix "The GDB Agent Expression Mechanism" of gdb's manual. What collects trace data or prints is not
supported. The code comes from a socket, so its steps and its stack are bounded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from dbt.abi.addresses import Gva
from dbt.gdb.target import TargetError

#: The longest expression in bytes, the most steps of an evaluation, and the most values on the stack.
MAX_EXPRESSION, MAX_STEPS, MAX_STACK = 4096, 4096, 256
_MASK = (1 << 64) - 1
_ENDLESS = "an expression that has no end"
#: Opcodes; further ones are in the tables below. There are four of each of REF8 and CONST8, for 8 to 64 bits.
_LOG_NOT, _BIT_NOT, _EXT, _REF8, _IF_GOTO, _GOTO, _CONST8, _REG = 0x0E, 0x12, 0x16, 0x17, 0x20, 0x21, 0x22, 0x26
_END, _DUP, _POP, _ZERO_EXT, _SWAP, _PICK, _ROT = 0x27, 0x28, 0x29, 0x2A, 0x2B, 0x32, 0x33


class WrongExpression(TargetError):
    """Raised for an expression that cannot be evaluated."""


class Values(Protocol):
    """What an expression reads: 32-bit registers by their numbers in the protocol, and memory."""

    def read_register(self, vcpu: int, number: int) -> int: ...
    def read_memory(self, address: int, size: int) -> bytes: ...


def _signed(value: int, bits: int = 64) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


def _quotient(a: int, b: int) -> int:
    """Return a / b, rounded toward zero as in C."""
    if not b:
        raise WrongExpression("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


#: Operators of two operands that are taken as unsigned numbers of 64 bits, and of two that are signed, by opcode.
_UNSIGNED: Mapping[int, Callable[[int, int], int]] = {
    0x02: operator.add,
    0x03: operator.sub,
    0x04: operator.mul,
    0x06: _quotient,
    0x08: lambda a, b: a - _quotient(a, b) * b,
    0x09: lambda a, b: a << min(b, 64),
    0x0B: lambda a, b: a >> min(b, 64),
    0x0F: operator.and_,
    0x10: operator.or_,
    0x11: operator.xor,
    0x13: operator.eq,
    0x15: operator.lt,
}
_SIGNED: Mapping[int, Callable[[int, int], int]] = {
    0x05: _quotient,
    0x07: lambda a, b: a - _quotient(a, b) * b,
    0x0A: lambda a, b: a >> min(max(b, 0), 63),
    0x14: operator.lt,
}


class Expression(NamedTuple):
    """An expression in bytecode."""

    code: bytes

    def evaluate(self, values: Values, vcpu: int) -> int:
        """Return the value, an unsigned number of 64 bits. Raises TargetError."""
        return _Evaluation(self.code, values, vcpu).run()


class _Evaluation:
    """One evaluation. All values on the stack are unsigned numbers of 64 bits."""

    def __init__(self, code: bytes, values: Values, vcpu: int) -> None:
        self._code, self._values, self._vcpu = code, values, vcpu
        self._at = 0
        self._stack: list[int] = []

    def run(self) -> int:
        code = self._code
        for _ in range(MAX_STEPS):
            if self._at >= len(code):
                raise WrongExpression(_ENDLESS)
            opcode = code[self._at]
            self._at += 1
            if opcode == _END:
                return self._pop()
            self._execute(opcode)
            if len(self._stack) > MAX_STACK:
                raise WrongExpression("an expression that needs too much stack")
        raise WrongExpression(f"an expression of more than {MAX_STEPS} steps")

    def _operand(self, size: int) -> int:
        found = self._code[self._at : self._at + size]
        if len(found) != size:
            raise WrongExpression(_ENDLESS)
        self._at += size
        return int.from_bytes(found, "big")

    def _pop(self) -> int:
        if not self._stack:
            raise WrongExpression("an expression that takes more from the stack than is there")
        return self._stack.pop()

    def _push(self, value: int) -> None:
        self._stack.append(value & _MASK)

    def _execute(self, opcode: int) -> None:
        if _CONST8 <= opcode < _REG:
            self._push(self._operand(1 << opcode - _CONST8))
        elif opcode in _UNSIGNED:
            second, first = self._pop(), self._pop()
            self._push(int(_UNSIGNED[opcode](first, second)))
        elif opcode in _SIGNED:
            second, first = _signed(self._pop()), _signed(self._pop())
            self._push(int(_SIGNED[opcode](first, second)))
        elif _REF8 <= opcode < _REF8 + 4:
            self._push(self._load(self._pop(), 1 << opcode - _REF8))
        else:
            self._execute_other(opcode)

    def _execute_other(self, opcode: int) -> None:
        if opcode in (_LOG_NOT, _BIT_NOT):
            value = self._pop()
            self._push(not value if opcode == _LOG_NOT else ~value)
        elif opcode in (_EXT, _ZERO_EXT):
            bits = min(self._operand(1), 64)
            value = self._pop() & (1 << bits) - 1
            self._push(_signed(value, bits) if opcode == _EXT and bits else value)
        elif opcode in (_IF_GOTO, _GOTO):
            target = self._operand(2)
            if opcode == _GOTO or self._pop():
                self._at = target
        elif opcode == _REG:
            self._push(self._values.read_register(self._vcpu, self._operand(2)))
        else:
            self._rearrange(opcode)

    def _rearrange(self, opcode: int) -> None:
        if opcode == _DUP:
            self._stack += [self._pop()] * 2
        elif opcode == _POP:
            self._pop()
        elif opcode == _SWAP:
            self._stack += [self._pop(), self._pop()]
        elif opcode == _PICK:
            depth = self._operand(1)
            if depth >= len(self._stack):
                raise WrongExpression("an expression that takes more from the stack than is there")
            self._push(self._stack[-1 - depth])
        elif opcode == _ROT:  # a b c => c a b
            third, second, first = self._pop(), self._pop(), self._pop()
            self._stack += [third, first, second]
        else:
            raise WrongExpression(f"an expression with the bytecode {opcode:#04x}, which is not supported")

    def _load(self, address: int, size: int) -> int:
        data = self._values.read_memory(Gva(address & 0xFFFFFFFF), size)
        if len(data) < size:
            raise WrongExpression("an expression that reads memory which is not there")
        return int.from_bytes(data, "little")
