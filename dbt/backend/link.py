"""The linker, which turns a relocatable object into position-independent code."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dbt.backend import elfobject
from dbt.backend.elfobject import ElfObject

_RELATIVE = {2, 4}  # R_X86_64_PC32, R_X86_64_PLT32
_LOADED = (elfobject.PROGBITS, elfobject.NOBITS)
_RELOCATIONS = (elfobject.RELA, elfobject.REL)


class LinkError(ValueError):
    """Raised for an object that needs something that an image cannot have."""


class Patch(NamedTuple):
    """A place in code, by its offset, for the distance (i32) from there to a symbol elsewhere, plus an addend."""

    symbol: str
    offset: int
    addend: int


def link_object(object_bytes: bytes, patches: list[Patch] | None = None) -> tuple[bytes, dict[str, int]]:
    """Lay out the sections that are loaded, resolve the relocations between them, and return code and symbols.

    With ``patches``, symbols that the object does not define are allowed, and what refers to them is added there.
    """
    code = bytearray()
    symbols = _place(object_bytes, code, patches)
    return bytes(code), symbols


def link_objects(objects: list[bytes]) -> tuple[bytes, dict[str, int]]:
    """Return code and symbols of objects that refer to each other, one behind the other."""
    code, symbols, patches = bytearray(), dict[str, int](), list[Patch]()
    for one in objects:
        symbols.update(_place(one, code, patches))
    for symbol, at, addend in patches:
        if symbol not in symbols:
            raise LinkError(f"no object has {symbol!r}")
        struct.pack_into("<i", code, at, symbols[symbol] + addend - at)
    return bytes(code), symbols


def _place(object_bytes: bytes, code: bytearray, patches: list[Patch] | None) -> dict[str, int]:
    """Add an object to the code, and return its symbols. See :func:`link_object`."""
    elf = ElfObject(object_bytes)
    placed: dict[int, int] = {}
    for number, section in enumerate(elf.sections):
        # This leaves out the tables for unwinding, which have a type of their own.
        if not section.flags & elfobject.ALLOC or section.type not in _LOADED or not section.size:
            continue
        if section.flags & elfobject.WRITE:
            raise LinkError(f"section {number} is writable")
        code.extend(b"\xcc" * (-len(code) % max(section.alignment, 1)))
        placed[number] = len(code)
        code.extend(elf.contents(section))
    for section in elf.sections:
        if section.type not in _RELOCATIONS or section.info not in placed:
            continue
        if section.type == elfobject.REL:
            raise LinkError("a relocation without addend")
        base = placed[section.info]
        for offset, kind, symbol, addend in elf.relocations(section):
            at = base + offset
            if patches is not None and not symbol.section and kind in _RELATIVE:
                patches.append(Patch(symbol.name, at, addend))
                continue
            if symbol.section not in placed or kind not in _RELATIVE:
                raise LinkError(f"relocation {kind} against {symbol.name!r}")
            struct.pack_into("<i", code, at, placed[symbol.section] + symbol.value + addend - at)
    return {
        symbol.name: placed[symbol.section] + symbol.value
        for symbol in elf.symbols
        if symbol.section in placed and symbol.type != elfobject.SECTION_SYMBOL
    }
