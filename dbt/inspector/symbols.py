"""The symbols of an ELF file: names for addresses. They are read when they are first needed.

They are unpacked by hand, because importing pyelftools would delay a message after Ctrl-C by 54 ms, and because a
kernel has a hundred thousand symbols.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple, Self

from dbt.abi.addresses import Gva

_SECTION = struct.Struct("<10I")
_SECTIONS = struct.Struct("<32xI10xHH")  # e_shoff, e_shentsize, e_shnum
_ELF_HEADER_SIZE = 52
_SYMBOL_TABLE, _STRING_TABLE = 2, 3
_SYMBOL = struct.Struct("<IIIBBH")
_FUNCTION = 2  # and below: no type, object
_UNDEFINED, _RESERVED = 0, 0xFF00
#: Names may be the ends of others. Together they are at most so many times as long as their table, so that a small file
#: does not take all memory.
_MOST_OVERLAP = 16
#: A symbol without a size names what follows it up to the next one, but not more than this.
_REACH = 1 << 20


class Symbol(NamedTuple):
    """A name for ``size`` bytes at ``address``. ``size`` is 0 if the file gives none."""

    address: Gva
    name: str
    size: int


def printable(text: str) -> str:
    """Return the text with a question mark for each control character but a newline, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _printable(symbol: Symbol) -> Symbol:
    """Return the symbol with a name that a terminal shows as it is, on one line."""
    if symbol.name.isprintable():
        return symbol
    return symbol._replace(name=printable(symbol.name).replace("\n", "?"))


class SymbolTable:
    """The symbols of an ELF file. Other data has none, and neither has a damaged symbol table."""

    def __init__(self, image: bytes = b"") -> None:
        self.image = image

    @classmethod
    def of(cls, symbols: Iterable[Symbol]) -> Self:
        """Return a table of symbols that were read before."""
        table = cls()
        table.__dict__["symbols"] = sorted(map(_printable, symbols))
        return table

    @cached_property
    def symbols(self) -> list[Symbol]:
        """Functions, objects and labels in the order of their addresses, without mapping symbols."""
        return [_printable(symbol) for symbol in self._all if symbol.name and not symbol.name.startswith("$")]

    @cached_property
    def mapping(self) -> list[tuple[Gva, str]]:
        """The mapping symbols as address and kind: ``a`` begins A32 code, ``t`` Thumb code, ``d`` data (IHI 0044,
        5.5.5).
        """
        return [(s.address, s.name[1]) for s in self._all if s.name[:2] in ("$a", "$t", "$d")]

    def find(self, address: Gva) -> tuple[str, int] | None:
        """Return the name of the symbol that ``address`` belongs to and the offset from it, or None if there is
        none.
        """
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        # Of several names for one place the first one with a size is the function; the others are labels.
        same = [s for s in self.symbols[max(0, index - 7) : index + 1] if s.address == self._addresses[index]]
        symbol = max(same, key=lambda s: s.size)
        offset = address - symbol.address
        return (symbol.name, offset) if offset < (symbol.size or _REACH) else None

    def describe(self, address: Gva) -> str:
        """Return ``main+0x12``, ``main``, or the address in hexadecimal if it belongs to no symbol."""
        found = self.find(address)
        if found is None:
            return f"{address:#x}"
        return found[0] if found[1] == 0 else f"{found[0]}+{found[1]:#x}"

    def packed(self) -> bytes:
        """Return an ELF file that has these symbols and nothing else, or nothing if there are none."""
        try:
            found = self._tables() if self.image[:4] == b"\x7fELF" else None
        except Exception:  # as in _all
            found = None
        if found is None:
            return b""
        table, strings = found
        places = ((0, 0, 0), (_SYMBOL_TABLE, len(table), 2), (_STRING_TABLE, len(strings), 0))
        offset = _ELF_HEADER_SIZE + len(places) * _SECTION.size
        headers = b""
        for kind, size, link in places:
            headers += _SECTION.pack(0, kind, 0, 0, offset, size, link, 0, 0, 0)
            offset += size
        header = bytearray(_ELF_HEADER_SIZE)
        _SECTIONS.pack_into(header, 0, _ELF_HEADER_SIZE, _SECTION.size, len(places))
        header[:4] = b"\x7fELF"
        return bytes(header) + headers + table + strings

    @cached_property
    def _all(self) -> list[Symbol]:
        if self.image[:4] != b"\x7fELF":
            return []
        try:
            return sorted(set(self._read()))
        except Exception:  # A damaged table means no names, never no answer: the image itself was sound.
            return []

    @cached_property
    def _addresses(self) -> list[Gva]:
        return [symbol.address for symbol in self.symbols]

    def _read(self) -> Iterator[Symbol]:
        """Yield the defined symbols of the first symbol table (System V ABI, Symbol Table)."""
        found = self._tables()
        if found is None:
            return
        table, strings = found
        left = _MOST_OVERLAP * len(strings)
        for name, address, size, info, _, section in _SYMBOL.iter_unpack(table):
            if info & 0xF <= _FUNCTION and section != _UNDEFINED and section < _RESERVED:
                end = strings.index(b"\0", name)
                left -= end - name
                if left < 0:
                    raise ValueError("the names of symbols are far longer together than the table that has them")
                text = strings[name:end].decode("utf-8", "replace")
                thumb_bit = info & 0xF == _FUNCTION and address & 1
                yield Symbol(Gva(address - thumb_bit), text, size)

    def _tables(self) -> tuple[bytes, bytes] | None:
        """Return the first symbol table and its strings, or None if there is none."""
        offset, entry_size, count = _SECTIONS.unpack_from(self.image)
        sections = [_SECTION.unpack_from(self.image, offset + n * entry_size) for n in range(count)]
        table = next((section for section in sections if section[1] == _SYMBOL_TABLE), None)
        return None if table is None else (self._content(table), self._content(sections[table[6]]))

    def _content(self, section: tuple[int, ...]) -> bytes:
        offset, size = section[4:6]
        return self.image[offset : offset + size]
