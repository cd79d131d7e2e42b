"""Reading what LLVM writes: a relocatable ELF64 object's sections, symbols and relocations.

By hand, because a region is linked in the time that pyelftools takes to read its object. The structures
are those of the System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
#: A file for this host: \x7fELF, 64 bits, little-endian, version 1, ET_REL, EM_X86_64.
_WANTED = (b"\x7fELF", 2, 1, 1, 1, 62)
PROGBITS, SYMTAB, RELA, NOBITS, REL = 1, 2, 4, 8, 9
WRITE, ALLOC = 1, 2
SECTION_SYMBOL = 3


class Section(NamedTuple):
    """``link`` and ``info``: other sections' numbers, as the type has it."""

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
    """``section``: the number of the one that ``value`` is an offset in."""

    name: str
    type: int
    section: int
    value: int


class ElfObject:
    """``sections`` and ``symbols`` are in the file's order. ValueError if it is not such an object."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        if len(data) < _HEADER.size or (header := _HEADER.unpack_from(data))[:6] != _WANTED:
            raise ValueError("this is no relocatable ELF64 object for x86-64")
        table, count = header[9], header[15]  # e_shoff, e_shnum
        self.sections = [Section._make(entry) for entry in _SECTION.iter_unpack(data[table : table + 64 * count])]
        self.symbols = [symbol for section in self.sections if section.type == SYMTAB for symbol in self._read(section)]

    def contents(self, section: Section) -> bytes:
        """The bytes of a section, zeros where the file has none."""
        if section.type == NOBITS:
            return bytes(section.size)
        return self._data[section.offset : section.offset + section.size]

    def _read(self, section: Section) -> Iterator[Symbol]:
        names = self.contents(self.sections[section.link])
        for name, info, _, number, value, _ in _SYMBOL.iter_unpack(self.contents(section)):
            yield Symbol(names[name : names.index(b"\0", name)].decode(), info & 15, number, value)

    def relocations(self, section: Section) -> Iterator[tuple[int, int, Symbol, int]]:
        """Of a section of type RELA: offset, type, symbol and addend."""
        for offset, info, addend in _RELA.iter_unpack(self.contents(section)):
            yield offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend
