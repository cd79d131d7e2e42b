"""A reader of the relocatable ELF64 objects that LLVM writes: sections, symbols and relocations.

It exists because pyelftools takes as long to read an object as the whole link of a region. The structures are those of
the System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
#: The header of a file for this host: \x7fELF, 64 bits, little-endian, version 1, ET_REL, EM_X86_64.
_WANTED = (b"\x7fELF", 2, 1, 1, 1, 62)
PROGBITS, SYMTAB, RELA, NOBITS, REL = 1, 2, 4, 8, 9
WRITE, ALLOC = 1, 2
SECTION_SYMBOL = 3


class Section(NamedTuple):
    """A section. ``link`` and ``info`` are numbers of other sections, with a meaning that depends on the type."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """A symbol. ``value`` is an offset in the section with the number ``section``; ``size`` is in bytes."""

    name: str
    type: int
    section: int
    value: int
    size: int


def sections_of(data: bytes) -> list[Section]:
    """Return the sections of an object, in the file's order. Raise ValueError for any other file."""
    if len(data) < _HEADER.size or (header := _HEADER.unpack_from(data))[:6] != _WANTED:
        raise ValueError("this is no relocatable ELF64 object for x86-64")
    table, count = header[9], header[15]  # e_shoff, e_shnum
    entries = data[table : table + _SECTION.size * count]
    if len(entries) != _SECTION.size * count:
        raise ValueError("the object ends before its sections do")
    return [Section._make(entry) for entry in _SECTION.iter_unpack(entries)]


class ElfObject:
    """An object, with ``sections`` and ``symbols`` in the file's order. Raises ValueError for any other file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.sections = sections_of(data)
        self.symbols = [symbol for section in self.sections if section.type == SYMTAB for symbol in self._read(section)]

    def contents(self, section: Section) -> bytes:
        """Return the bytes of a section. They are zeros if the file has none for it."""
        if section.type == NOBITS:
            return bytes(section.size)
        return self._data[section.offset : section.offset + section.size]

    def _read(self, section: Section) -> Iterator[Symbol]:
        names = self.contents(self.sections[section.link])
        for name, info, _, number, value, size in _SYMBOL.iter_unpack(self.contents(section)):
            yield Symbol(names[name : names.index(b"\0", name)].decode(), info & 15, number, value, size)

    def relocations(self, section: Section) -> Iterator[tuple[int, int, Symbol, int]]:
        """Yield offset, type, symbol and addend of each relocation in a section of type RELA."""
        for offset, info, addend in _RELA.iter_unpack(self.contents(section)):
            yield offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend
