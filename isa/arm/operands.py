"""The parts that instructions share: conditions, immediates and shifted operands."""

from __future__ import annotations

from isa.arm.recorder import Recorder
from isa.ir.uop import Uop

SP, LR, PC = 13, 14, 15
ALWAYS = 0b1110  # the condition AL
UNCONDITIONAL = 0b1111  # the condition field of instructions that have no condition
LSL, LSR, ASR, ROR = range(4)

CONDITION_NAMES = ("eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al")


def condition_holds(u: Recorder, cond: int) -> Uop:
    """Return ``ConditionPassed`` (A8.3.1) for a condition from 0 (EQ) to 14 (AL)."""
    match cond >> 1:
        case 0b000:
            holds = u.z
        case 0b001:
            holds = u.c
        case 0b010:
            holds = u.n
        case 0b011:
            holds = u.v
        case 0b100:
            holds = u.c & ~u.z
        case 0b101:
            holds = ~(u.n ^ u.v)
        case 0b110:
            holds = ~(u.n ^ u.v) & ~u.z
        case _:
            return u.const(1, 1)
    return ~holds if cond & 1 else holds


def expand_imm(u: Recorder, rotate: Uop, imm8: Uop) -> tuple[Uop, Uop]:
    """Return the results of ``ARMExpandImm_C`` (A5.2.4): the constant and the shifter's carry out."""
    value = imm8.ror(rotate << 1)
    return value, u.select(rotate == 0, u.c, value.bit(31))


def shift_by_immediate(u: Recorder, value: Uop, kind: int, imm5: Uop) -> tuple[Uop, Uop]:
    """Return result and carry out of ``Shift_C`` by ``DecodeImmShift`` (A8.4.3).

    ``imm5`` must be a number or known not to be 0, by a form. 0 stands for LSL #0, LSR #32, ASR #32 and RRX.
    """
    zero = bool(imm5 == 0)
    if kind == LSL:
        if zero:
            return value, u.c
        return value << imm5, value.bit(32 - imm5)
    if kind == LSR:
        if zero:
            return u.const(0), value.bit(31)
        return value >> imm5, value.bit(imm5 - 1)
    if kind == ASR:
        if zero:
            return value.ashr(31), value.bit(31)
        return value.ashr(imm5), value.bit(imm5 - 1)
    if zero:
        return (value >> 1) | (u.c.zext(32) << 31), value.bit(0)
    result = value.ror(imm5)
    return result, result.bit(31)


def shift_by_register(u: Recorder, value: Uop, kind: int, amount: Uop) -> tuple[Uop, Uop]:
    """Return result and carry out of ``Shift_C`` by the bottom byte of a register, 0 to 255 (A8.4.3)."""
    byte = amount & 0xFF
    if kind == ROR:
        result = value.ror(byte & 31)
        return result, u.select(byte == 0, u.c, result.bit(31))
    # The carry is the bit next to the result. In 64 bits every amount from 0 to 63 is one shift, and what lies above 63
    # gives what 63 gives. The result alone, which most instructions ask for, takes less in 32 bits.
    distance = u.select(byte.ult(63), byte, 63).zext(64)
    wide = value.zext(64)
    if kind == ASR:
        result = value.ashr(u.select(byte.ult(31), byte, 31))
        carry = (wide << 32).ashr(distance).bit(31)
    elif kind == LSL:
        result = u.select(byte.ult(32), value << (byte & 31), 0)
        carry = (wide << distance).bit(32)
    else:
        result = u.select(byte.ult(32), value >> (byte & 31), 0)
        carry = (wide << 32 >> distance).bit(31)
    return result, u.select(byte == 0, u.c, carry)


def set_nz(u: Recorder, result: Uop) -> None:
    """Set N and Z from a result of 32 or 64 bits."""
    u.n = result.bit(result.width - 1)
    u.z = result == 0
