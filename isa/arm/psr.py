"""The program status registers and the registers that change with the mode (ARM ARM B1.3)."""

from __future__ import annotations

from isa.arm.recorder import Recorder
from isa.arm.state import BANKS, PSR_E, PSR_KEPT, PSR_MODE, Mode
from isa.ir.uop import Uop

PSR_J = 1 << 24
_FLAGS = (("n", 31), ("z", 30), ("c", 29), ("v", 28), ("q", 27))
#: For each M[3:0] its bank, a nibble each; and whether there is such a mode, a bit each.
_BANK_TABLE = sum(bank << 4 * (mode & 15) for mode, bank in BANKS.items())
_MODE_TABLE = sum(1 << (mode & 15) for mode in BANKS)
_FIQ_BANK = BANKS[Mode.FIQ]
_FIQ_REGISTERS = range(8, 13)


def current_mode(u: Recorder) -> Uop:
    return u.get("psr") & PSR_MODE


def is_user(u: Recorder) -> Uop:
    return current_mode(u) == Mode.USER


def is_valid_mode(u: Recorder, mode: Uop) -> Uop:
    """Return True if the 5-bit mode field is valid."""
    return mode.bit(4) & (u.const(_MODE_TABLE) >> (mode & 15)).trunc(1)


def bank_of(u: Recorder, mode: Uop) -> Uop:
    """Return the bank of a mode, which is an index of ``bank_r13``, ``bank_r14`` and ``spsr``."""
    return (u.const(_BANK_TABLE, 64) >> ((mode & 15) << 2).zext(64)).trunc(32) & 15


def cpsr(u: Recorder) -> Uop:
    """Return the CPSR as MRS reads it."""
    value = u.ge << 16 | u.get("psr")
    for name, place in _FLAGS:
        value = value | u.get(name) << place
    return value


def spsr(u: Recorder) -> Uop:
    """Return the SPSR of the current mode.

    System mode has none, and reading it is UNPREDICTABLE; we choose the CPSR. choice: spsr-of-system-mode
    """
    bank = bank_of(u, current_mode(u))
    return u.select(bank == 0, cpsr(u), u.get_at("spsr", bank))


def set_spsr(u: Recorder, value: Uop) -> None:
    bank = bank_of(u, current_mode(u))
    with u.when(bank != 0):
        u.set_at("spsr", bank, value)


def switch_mode(u: Recorder, mode: Uop) -> None:
    """Change CPSR.M to a valid mode, and the registers R8 to R14 that belong to it."""
    old, new = bank_of(u, current_mode(u)), bank_of(u, mode)
    with u.when(old != new):
        u.set_at("bank_r13", old, u.reg[13])
        u.set_at("bank_r14", old, u.reg[14])
        with u.when((old == _FIQ_BANK) | (new == _FIQ_BANK)):
            for number in _FIQ_REGISTERS:
                here, there = u.reg[number], u.get_at("bank_r8", number - 8)
                u.reg[number] = there
                u.set_at("bank_r8", number - 8, here)
        u.reg[13] = u.get_at("bank_r13", new)
        u.reg[14] = u.get_at("bank_r14", new)
    u.set("psr", u.get("psr") & ~PSR_MODE & 0xFFFFFFFF | mode)


def set_cpsr(u: Recorder, value: Uop) -> None:
    """Set every bit of the CPSR except J, which does not exist. choice: no-jazelle

    An invalid mode is UNPREDICTABLE; we choose to stay in the current one. choice: invalid-mode
    """
    mode = value & PSR_MODE
    switch_mode(u, u.select(is_valid_mode(u, mode), mode, current_mode(u)))
    for name, place in _FLAGS:
        u.set(name, value.bits(place, place))
    u.ge = value.bits(19, 16)
    kept = PSR_KEPT & ~PSR_MODE
    u.set("psr", u.get("psr") & PSR_MODE | value & kept)


def refuse_big_endian(u: Recorder, value: Uop) -> None:
    """Leave if bit E would be set. ARMv6 and later have big-endian data; we do not. choice: no-big-endian"""
    with u.when(value.bit(PSR_E.bit_length() - 1)):
        u.callout("unsupported", 0)


def user_register_bank(u: Recorder, number: Uop) -> tuple[Uop, Uop]:
    """Return whether register ``number`` of user mode is banked with R8 to R12, and whether with R13 and R14."""
    bank = bank_of(u, current_mode(u))
    low = (u.const(7).ult(number)) & number.ult(13)
    return low & (bank == _FIQ_BANK), u.const(12).ult(number) & number.ult(15) & (bank != 0)
