"""The pure operations, and what each computes from numbers. This is the definition of their meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping


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
#: The operations whose result has one bit.
COMPARISONS = frozenset({"eq", "ne", "ult", "slt", "adc_carry", "adc_overflow"})
#: The operations of an addition with carry: the sum, the carry out and the overflow.
ADDITIONS = frozenset({"adc", "adc_carry", "adc_overflow"})
