"""Encoding one instruction at its address. Labels become offsets and constants here, and keystone sees numbers only.

keystone resolves labels too, but if one is out of reach or not aligned, it silently makes a wrong word.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dbt.abi.addresses import Gva
from dbt.assembler.expressions import ExpressionError, Lookup, UndefinedSymbol, evaluate
from dbt.assembler.source import split_operands

_CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al")
_CONDITION = "|".join((*_CONDITIONS, "cs", "cc"))
_BRANCH = re.compile(rf"(b|bl|blx)({_CONDITION})?")
_ADDRESS = re.compile(rf"adr({_CONDITION})?")
_LITERAL = re.compile(rf"ldr({_CONDITION})?")
#: The instructions with a PC-relative form, its largest offset and the unit of that (DDI 0406, A8.8).
_REACHES = (
    (re.compile(rf"(ldr|str)b?({_CONDITION})?|pldw?|pli"), 4095, 1),
    (re.compile(rf"(ldr(h|sb|sh|d)|str(h|d))({_CONDITION})?"), 255, 1),
    (re.compile(rf"v(ldr|str)({_CONDITION})?(\.\w+)?|(ldc|stc)2?l?({_CONDITION})?"), 1020, 4),
)
_REGISTER = re.compile(r"(r([0-9]|1[0-5])|a[1-4]|v[1-8]|sb|sl|fp|ip|sp|lr|pc|[sdqpc][0-9]{1,2}|cr[0-9]{1,2})", re.I)
_SHIFT = re.compile(r"lsl|lsr|asr|ror|rrx", re.I)
_NAME = re.compile(r"(?<![\w.$#:])[A-Za-z_.$][\w.$]*")
_IMMEDIATE = re.compile(r"#\s*(:(?:lower|upper)16:)?((?:'(?:\\.|[^\\])'?|[^,\]}!'])*)")
#: A number that keystone is given as it stands: -0 differs from 0, and some numbers are floating-point ones.
_PLAIN = re.compile(r"[-+]?(0x[0-9a-f]+|[1-9][0-9]*|0|[0-9]+\.[0-9]*(e[-+]?[0-9]+)?)", re.I)
#: The text that keystone may be given. Other text can hang it: an open quotation mark does.
_WITHOUT_SYMBOLS = re.compile(r"[a-z][a-z0-9_.]*[A-Za-z0-9_ \t,#\[\]{}!^+.:-]*")
#: An offset that keystone takes for -0.
_MINUS_NOTHING = re.compile(r"#\s*-\s*(2147483648|0x0*80000000)\b", re.I)


class InstructionError(ValueError):
    """Raised if there is no such instruction, or not with these operands. The message says why."""


def modified_immediate(value: int) -> bool:
    """Return True if data-processing instructions can encode the constant (DDI 0406, A5.2.4)."""
    return any((value << turn | value >> (32 - turn)) & 0xFFFFFFFF < 256 for turn in range(0, 32, 2))


def literal_operand(name: str, operands: str) -> tuple[str, str] | None:
    """Return register and expression of ``ldr rd, =expression``, or None for anything else."""
    parts = split_operands(operands)
    if len(parts) != 2 or not parts[1].startswith("="):
        return None
    if not _LITERAL.fullmatch(name):
        raise InstructionError(f"only ldr has a constant from the literal pool, not {name}")
    return parts[0], parts[1][1:]


def short_form(name: str, register: str, value: int) -> str | None:
    """Return the MOV or MVN that GNU as uses in place of a load from the literal pool, or None if there is none."""
    for operation, constant in (("mov", value), ("mvn", ~value & 0xFFFFFFFF)):
        if modified_immediate(constant):
            return f"{operation}{name[3:]} {register}, #{constant}"
    return None


def encode(name: str, operands: str, address: Gva, lookup: Lookup) -> bytes:
    """Return the four bytes of an instruction at ``address``. Raise InstructionError or ExpressionError."""
    if address % 4:
        raise InstructionError(f"the instruction is at {address:#x}, which is no multiple of 4: write .align before it")
    parts = split_operands(operands)
    if (found := _BRANCH.fullmatch(name)) and len(parts) == 1 and not _REGISTER.fullmatch(parts[0]):
        return _encode_branch(found[1], found[2] or "al", parts[0].removeprefix("#"), address, lookup)
    if (found := _ADDRESS.fullmatch(name)) and len(parts) == 2:
        return assemble_word(_address_form(found[1] or "", parts, address, lookup))
    reach = next((reach for reach in _REACHES if reach[0].fullmatch(name)), None)
    if reach is not None and parts and not any(part.startswith("[") for part in parts):
        parts[-1] = _relative_operand(parts[-1], address, lookup, reach[1], reach[2])
    parts = [_IMMEDIATE.sub(lambda found: _immediate(found, name, lookup), part) for part in parts]
    for part in parts:
        _check_names(part, lookup)
    if any(part.startswith("[") for part in parts) and any(map(_MINUS_NOTHING.search, parts)):
        raise InstructionError("the offset is out of range")
    return assemble_word(f"{name} {', '.join(parts)}")


def load_literal(name: str, register: str, address: Gva, place: Gva) -> bytes:
    """Return the load of a register from ``place`` in the literal pool. Raise InstructionError."""
    offset = place - address - 8
    if abs(offset) > 4095:
        raise InstructionError(f"the literal pool is {abs(offset)} bytes away, and 4095 can be: write .ltorg nearer")
    return assemble_word(f"{name} {register}, [pc, #{offset or '-0'}]")  # GNU as subtracts an offset of 0 here


def _encode_branch(operation: str, condition: str, target: str, address: Gva, lookup: Lookup) -> bytes:
    number = evaluate(target, lookup).number
    offset = (number - address - 8 + (1 << 31)) % (1 << 32) - (1 << 31)
    if offset % (2 if operation == "blx" else 4):
        raise InstructionError(f"the branch goes to {number:#x}, which is not aligned")
    if not -(1 << 25) <= offset < 1 << 25:
        raise InstructionError(f"the branch goes to {number:#x}, which is more than 32 MiB away")
    top = {"b": 0x0A, "bl": 0x0B, "blx": 0xFA + (offset >> 1 & 1)}[operation]
    if operation != "blx":
        top |= {"cs": 2, "cc": 3}.get(condition, _CONDITIONS.index(condition) if condition in _CONDITIONS else 0) << 4
    elif condition != "al":
        raise InstructionError("blx with a label has no condition")
    return (top << 24 | offset >> 2 & 0xFFFFFF).to_bytes(4, "little")


def _address_form(condition: str, parts: list[str], address: Gva, lookup: Lookup) -> str:
    """Return an ADR as the ADD or SUB that encodes it."""
    offset = evaluate(parts[1], lookup).number - address - 8
    if not modified_immediate(abs(offset)):
        raise InstructionError(
            f"the offset {offset:#x} from the PC is none that adr has: use ldr {parts[0]}, ={parts[1]}"
        )
    return f"{'add' if offset >= 0 else 'sub'}{condition} {parts[0]}, pc, #{abs(offset)}"


def _relative_operand(target: str, address: Gva, lookup: Lookup, largest: int, unit: int) -> str:
    offset = evaluate(target, lookup).number - address - 8
    if abs(offset) > largest:
        raise InstructionError(f"{target} is {abs(offset)} bytes from the PC, and {largest} can be")
    if offset % unit:
        raise InstructionError(f"{target} is {abs(offset)} bytes from the PC, which is no multiple of {unit}")
    return f"[pc, #{offset}]"


def _immediate(found: re.Match[str], name: str, lookup: Lookup) -> str:
    """Return a ``#expression`` as a ``#number``."""
    half, text = found[1], found[2].strip()
    if half is None and _PLAIN.fullmatch(text):
        return found[0]
    value = evaluate(text, lookup)
    if half is not None:
        if name[:4] != ("movw" if half == ":lower16:" else "movt"):
            raise InstructionError(":lower16: is for movw, :upper16: for movt")
        return f"#{value.number >> (16 if half == ':upper16:' else 0) & 0xFFFF}"
    if value.is_address:
        raise InstructionError(
            f"{text} is an address, and a constant is needed: adr, or ldr with ={text}, has the address in a register"
        )
    return f"#{value.number}"


def _check_names(part: str, lookup: Lookup) -> None:
    """Raise InstructionError for a symbol inside brackets, or where keystone would make a wrong word of it."""
    inside = part.startswith("[")
    for found in _NAME.finditer(part):
        word = found[0]
        if _REGISTER.fullmatch(word) or _SHIFT.fullmatch(word):
            continue
        try:
            lookup(word)
        except UndefinedSymbol:
            if inside:
                raise InstructionError(f"{word} is no register") from None
            continue
        except ExpressionError:
            continue
        raise InstructionError(f"{word} is a symbol, which cannot stand there")


@lru_cache(1 << 12)
def assemble_word(text: str) -> bytes:
    """Return the four bytes of an instruction without symbols, by keystone. Raise InstructionError."""
    import keystone

    if not _WITHOUT_SYMBOLS.fullmatch(text):
        raise InstructionError("there is no such instruction")
    # A new engine each time: one that has printed a warning crashes some time later.
    engine = keystone.Ks(keystone.KS_ARCH_ARM, keystone.KS_MODE_ARM | keystone.KS_MODE_LITTLE_ENDIAN)
    try:
        code, _ = engine.asm(text, as_bytes=True)
    except keystone.KsError as error:
        raise InstructionError(str(error).split(" (KS_")[0]) from None
    if code is None or len(code) != 4:
        raise InstructionError("there is no such instruction, or not with these operands")
    return bytes(code)
