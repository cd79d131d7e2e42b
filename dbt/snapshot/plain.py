"""Plain values as bytes, in a part of MessagePack that has one encoding for each value.

The formats are nil, bool, int, str, bin, array and map (https://github.com/msgpack/msgpack/blob/master/spec.md), each
in its shortest form. The keys of a map are all integers or all texts, and sorted: integers by value, texts by their
UTF-8. So equal values have equal bytes, and what is decoded equals what was encoded, types included.

The decoder is for bytes from anybody. It takes no memory for what the bytes do not have: a length is compared with what
is left before anything is made of it, and the number and depth of values are limited.

It is written in Python because that is enough for some thousand values, and nothing has to be imported for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from dbt.devices.state import Plain

#: Lists and mappings may be in one another so many deep.
MAX_DEPTH: Final = 16
#: So many values can be decoded, lists and mappings and keys among them. Each takes some 100 bytes of memory at most.
MAX_VALUES: Final = 1 << 20

_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")
_I8, _I16, _I32, _I64 = struct.Struct(">b"), struct.Struct(">h"), struct.Struct(">i"), struct.Struct(">q")
#: The shortest formats first: the first byte, how the number is packed, and the numbers that the format is for.
_UNSIGNED = ((0xCC, struct.Struct(">B"), 1 << 7), (0xCD, _U16, 1 << 8), (0xCE, _U32, 1 << 16), (0xCF, _U64, 1 << 32))
_SIGNED = ((0xD0, _I8, -1 << 5), (0xD1, _I16, -1 << 7), (0xD2, _I32, -1 << 15), (0xD3, _I64, -1 << 31))
#: Lengths: the formats of a kind from the shortest on.
_TEXT = ((0xD9, struct.Struct(">B"), 1 << 5), (0xDA, _U16, 1 << 8), (0xDB, _U32, 1 << 16))
_BYTES = ((0xC4, struct.Struct(">B"), 0), (0xC5, _U16, 1 << 8), (0xC6, _U32, 1 << 16))
_LIST = ((0xDC, _U16, 1 << 4), (0xDD, _U32, 1 << 16))
_MAP = ((0xDE, _U16, 1 << 4), (0xDF, _U32, 1 << 16))
#: A text of Python may have single surrogates, which strict UTF-8 has not.
_SURROGATES = "surrogatepass"


class NotPlain(ValueError):
    """Raised for bytes that are not the encoding of a plain value."""


# -- to encode -----------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Return the bytes of a value. TypeError if it is not plain, ValueError if an integer needs more than 64 bits."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _encode(value: object, out: bytearray) -> None:
    # By the very type: what a subclass adds would not come back.
    if type(value) is int:
        _encode_int(value, out)
    elif value is None:
        out.append(0xC0)
    elif type(value) is bool:
        out.append(0xC3 if value else 0xC2)
    elif type(value) is bytes:
        _encode_length(len(value), _BYTES, None, out)
        out += value
    elif type(value) is str:
        data = value.encode("utf-8", _SURROGATES)
        _encode_length(len(data), _TEXT, 0xA0, out)
        out += data
    elif type(value) is list:
        _encode_length(len(value), _LIST, 0x90, out)
        for one in value:
            _encode(one, out)
    elif type(value) is dict:
        _encode_length(len(value), _MAP, 0x80, out)
        for key in _sorted_keys(value):
            _encode(key, out)
            _encode(value[key], out)
    else:
        raise TypeError(f"{value!r} is not a plain value")


def _sorted_keys(mapping: dict[object, object]) -> list[int] | list[str]:
    integers = [key for key in mapping if type(key) is int]
    texts = [key for key in mapping if type(key) is str]
    if len(integers) == len(mapping):
        return sorted(integers)
    if len(texts) == len(mapping):
        return sorted(texts, key=lambda text: text.encode("utf-8", _SURROGATES))
    raise TypeError(f"the keys of {mapping!r:.200} are neither integers nor texts")


def _encode_int(value: int, out: bytearray) -> None:
    if 0 <= value < 1 << 7:
        out.append(value)
    elif -1 << 5 <= value < 0:
        out.append(value & 0xFF)
    elif not -1 << 63 <= value < 1 << 64:
        raise ValueError(f"{value} does not fit in 64 bits")
    else:
        first, number, _ = (
            next(row for row in reversed(_UNSIGNED) if value >= row[2])
            if value >= 0
            else next(row for row in reversed(_SIGNED) if value < row[2])
        )
        out.append(first)
        out += number.pack(value)


def _encode_length(
    length: int, formats: tuple[tuple[int, struct.Struct, int], ...], short: int | None, out: bytearray
) -> None:
    if short is not None and length < formats[0][2]:
        out.append(short | length)
        return
    first, number, _ = next(row for row in reversed(formats) if length >= row[2])
    out.append(first)
    out += number.pack(length)


# -- to decode -----------------------------------------------------------------------------------


def decode(data: bytes, max_values: int = MAX_VALUES) -> Plain:
    """Return the value whose encoding is exactly ``data``. Raise NotPlain for other bytes, or for too many values."""
    decoder = _Decoder(data, max_values)
    value = decoder.value(0)
    if decoder.at != len(data):
        raise NotPlain(f"{len(data) - decoder.at} bytes follow the value")
    return value


class _Decoder:
    def __init__(self, data: bytes, max_values: int) -> None:
        self.at = 0
        self._data = data
        self._left = max_values

    def value(self, depth: int) -> Plain:
        data, at = self._data, self.at
        if at >= len(data):
            raise NotPlain("it ends within a value")
        if not self._left:
            raise NotPlain("it has too many values")
        self._left -= 1
        first = data[at]
        self.at = at + 1
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self._map(first & 0x0F, depth)
        if first < 0xA0:
            return self._list(first & 0x0F, depth)
        if first < 0xC0:
            return self._text(first & 0x1F)
        read = _READERS.get(first)
        if read is None:
            raise NotPlain(f"the byte {first:#x} begins no plain value")
        return read(self, depth)

    def _number(self, packed: struct.Struct) -> int:
        end = self.at + packed.size
        if end > len(self._data):
            raise NotPlain("it ends within a value")
        (value,) = packed.unpack_from(self._data, self.at)
        self.at = end
        return int(value)

    def at_least(self, packed: struct.Struct, least: int) -> int:
        """Return a number, which has a shorter form if it is less than ``least``."""
        value = self._number(packed)
        if value < least:
            raise NotPlain(f"the number {value} is not in its shortest form")
        return value

    def below(self, packed: struct.Struct, limit: int) -> int:
        """Return a negative number, which has another form if it is not less than ``limit``."""
        value = self._number(packed)
        if value >= limit:
            raise NotPlain(f"the number {value} is not in its shortest form")
        return value

    def bytes_(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._data):
            raise NotPlain("it ends within a value")
        found = self._data[self.at : end]
        self.at = end
        return found

    def _text(self, length: int) -> str:
        try:
            return self.bytes_(length).decode("utf-8", _SURROGATES)
        except UnicodeDecodeError:
            raise NotPlain("a text is not in UTF-8") from None

    def _list(self, length: int, depth: int) -> Plain:
        self._check(length, depth)
        return [self.value(depth + 1) for _ in range(length)]

    def _map(self, length: int, depth: int) -> Plain:
        self._check(2 * length, depth)
        found: dict[int | str, Plain] = {}
        last: int | bytes | None = None
        for _ in range(length):
            key = self.value(MAX_DEPTH)
            if type(key) is not int and type(key) is not str:
                raise NotPlain("a key is neither an integer nor a text")
            order = key if isinstance(key, int) else key.encode("utf-8", _SURROGATES)
            if last is not None and (type(last) is not type(order) or order <= last):  # type: ignore[operator]
                raise NotPlain("the keys of a mapping are not sorted, or of two kinds")
            last = order
            found[key] = self.value(depth + 1)
        return found  # type: ignore[return-value]

    def _check(self, values: int, depth: int) -> None:
        """Raise NotPlain for more values than there are bytes, or than may be in one another."""
        if depth >= MAX_DEPTH:
            raise NotPlain("a value has too many levels, or a key is a list")
        if values > len(self._data) - self.at:
            raise NotPlain("it ends within a value")


_Reader = Callable[[_Decoder, int], Plain]


def _readers() -> dict[int, _Reader]:
    """Return what reads a value by the value's first byte, from 0xc0 to 0xdf."""

    def constant(value: Plain) -> _Reader:
        return lambda decoder, depth: value

    def unsigned(packed: struct.Struct, least: int) -> _Reader:
        return lambda decoder, depth: decoder.at_least(packed, least)

    def signed(packed: struct.Struct, limit: int) -> _Reader:
        return lambda decoder, depth: decoder.below(packed, limit)

    def sized(packed: struct.Struct, least: int, read: Callable[[_Decoder, int, int], Plain]) -> _Reader:
        return lambda decoder, depth: read(decoder, decoder.at_least(packed, least), depth)

    readers = {0xC0: constant(None), 0xC2: constant(False), 0xC3: constant(True)}
    readers |= {first: unsigned(packed, least) for first, packed, least in _UNSIGNED}
    readers |= {first: signed(packed, limit) for first, packed, limit in _SIGNED}
    for formats, read in (
        (_BYTES, lambda decoder, length, depth: decoder.bytes_(length)),
        (_TEXT, lambda decoder, length, depth: decoder._text(length)),
        (_LIST, _Decoder._list),
        (_MAP, _Decoder._map),
    ):
        readers |= {first: sized(packed, least, read) for first, packed, least in formats}
    return readers


_READERS: Final = _readers()
