"""The expressions of assembly text, which are evaluated to numbers, and whether the number is an address.

The operators and their ranks are those of GNU as (info as, "Infix Operators"), where ``|``, ``&`` and ``^`` bind
tighter than ``+`` and ``-``, and a comparison that holds is -1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

#: The names that a symbol may have.
SYMBOL = r"[A-Za-z_.$][\w.$]*"
_TOKEN = re.compile(
    rf"\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+(?![\w.$])|'(?:\\.|[^\\])'?|{SYMBOL}|<<|>>|<=|>=|==|!=|<>|&&|\|\||[-+*/%&|^~!()<>])"
)
_RANKS = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("==", "!=", "<>", "<", ">", "<=", ">="), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("|&^", 5),
    **dict.fromkeys(("*", "/", "%", "<<", ">>"), 6),
}
_ESCAPES = {"n": 10, "t": 9, "b": 8, "f": 12, "r": 13}
_DEEPEST = 60
_LARGEST = 1 << 64


class ExpressionError(ValueError):
    """Raised for text that is no expression or has no value. The message says why."""


class UndefinedSymbol(ExpressionError):
    """Raised for a symbol that has no value, or not yet."""


class Value(NamedTuple):
    """A number that is an address (of a label, for example) or a constant."""

    number: int
    is_address: bool = False


Lookup = Callable[[str], Value]


def evaluate(text: str, lookup: Lookup) -> Value:
    """Return the value of an expression, in which ``lookup`` gives that of a symbol. Raise ExpressionError."""
    tokens: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise ExpressionError(f"{text.strip()!r} is no expression")
        tokens.append(found[1])
        at = found.end()
    parser = _Parser(tokens, lookup, text.strip())
    value = parser.parse(1)
    if parser.tokens:
        raise ExpressionError(f"{text.strip()!r} is no expression")
    return value


def evaluate_constant(text: str, lookup: Lookup) -> int:
    """Return the value of an expression. Raise ExpressionError if it is an address or has no value."""
    value = evaluate(text, lookup)
    if value.is_address:
        raise ExpressionError(f"{text.strip()!r} is an address, and a constant is needed")
    return value.number


class _Parser:
    """Parses operators by their rank. ``tokens`` are the remaining ones, with the next one last."""

    def __init__(self, tokens: list[str], lookup: Lookup, text: str) -> None:
        self.tokens = tokens[::-1]
        self._lookup = lookup
        self._text = text
        self._depth = 0

    def parse(self, lowest: int) -> Value:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("the expression is nested too deeply")
        left = self._parse_operand()
        while self.tokens and _RANKS.get(self.tokens[-1], 0) >= lowest:
            operator = self.tokens.pop()
            left = _apply(operator, left, self.parse(_RANKS[operator] + 1))
        self._depth -= 1
        return left

    def _parse_operand(self) -> Value:
        if not self.tokens:
            raise ExpressionError(f"{self._text!r} is no expression" if self._text else "an expression is missing")
        token = self.tokens.pop()
        if token == "(":
            value = self.parse(1)
            if not self.tokens or self.tokens.pop() != ")":
                raise ExpressionError(f"{self._text!r}: a parenthesis is not closed")
            return value
        if token in ("-", "+", "~", "!"):
            number = self._parse_unary().number
            return Value({"-": -number, "+": number, "~": ~number, "!": int(not number)}[token])
        if token[0].isdigit():
            return Value(_parse_number(token))
        if token[0] == "'":
            return Value(_parse_character(token))
        if token[0].isalpha() or token[0] in "_.$":
            return self._lookup(token)
        raise ExpressionError(f"{self._text!r} is no expression")

    def _parse_unary(self) -> Value:
        """Return the value of the operand after a sign, which must be a constant."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("the expression is nested too deeply")
        value = self._parse_operand()
        self._depth -= 1
        if value.is_address:
            raise ExpressionError(f"{self._text!r}: an address can only be added to and subtracted from")
        return value


def _parse_number(token: str) -> int:
    """Return the value of a number in C's notation: 0x for base 16, 0b for 2, 0 for 8."""
    try:
        return int(token, 8 if token.isdigit() and token[0] == "0" else 0)
    except ValueError:
        raise ExpressionError(f"{token[:20]} is no number") from None


def _parse_character(token: str) -> int:
    body = token[1:-1] if len(token) > 2 and token.endswith("'") else token[1:]
    if body.startswith("\\"):
        return _ESCAPES.get(body[1], ord(body[1]))
    return ord(body)


def _apply(operator: str, left: Value, right: Value) -> Value:
    if left.is_address or right.is_address:
        return _apply_to_addresses(operator, left, right)
    number = _calculate(operator, left.number, right.number)
    if abs(number) >= _LARGEST:
        raise ExpressionError("the value has more than 64 bits")
    return Value(number)


def _apply_to_addresses(operator: str, left: Value, right: Value) -> Value:
    if operator == "+" and not (left.is_address and right.is_address):
        return Value(left.number + right.number, True)
    if operator == "-" and left.is_address:
        return Value(left.number - right.number, not right.is_address)
    if _RANKS[operator] == 3 and left.is_address and right.is_address:
        return Value(_calculate(operator, left.number, right.number))
    raise ExpressionError("an address can only be added to and subtracted from")


def _calculate(operator: str, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" | "%":
            if not right:
                raise ExpressionError("division by zero")
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            return quotient if operator == "/" else left - right * quotient
        case "<<" | ">>":
            if not 0 <= right < 64:
                raise ExpressionError(f"a shift by {right} is not between 0 and 63")
            return left << right if operator == "<<" else left >> right
        case "|":
            return left | right
        case "&":
            return left & right
        case "^":
            return left ^ right
        case "&&":
            return int(bool(left) and bool(right))
        case "||":
            return int(bool(left) or bool(right))
    holds = {
        "==": left == right, "!=": left != right, "<>": left != right,
        "<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right,
    }[operator]  # fmt: skip
    return -int(holds)
