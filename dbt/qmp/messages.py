"""Messages of QEMU's machine protocol: JSON values one after the other, whatever is between them.

What comes is hostile until it has been read. A message has a limit in length and in depth, and a client that sends
something else is told so. Like QEMU's reader this one also takes strings in single quotes, and does not wait for the
end of a line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: The most bytes of a message.
MAX_MESSAGE = 1 << 16
#: How deep arrays and objects of a message may be in each other.
MAX_DEPTH = 64
_MOST_DIGITS = 400
_NEWLINE, _SPACE, _BACKSLASH, _DOUBLE, _SINGLE, _FLUSH = 0x0A, 0x20, 0x5C, 0x22, 0x27, 0xFF


class Malformed(NamedTuple):
    """What has come instead of a message, in words."""

    why: str


class MessageReader:
    """Finds the messages in what a client sends, in pieces of any size.

    After something that is no message, the rest of its line is skipped. A byte 0xFF ends whatever has begun.
    """

    def __init__(self) -> None:
        self._skips = False
        self._forget()

    def _forget(self) -> None:
        self._text = bytearray()
        self._depth = 0
        self._quote = 0  # of the string in which the text ends
        self._is_escaped = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the messages, or :class:`Malformed`, that end in ``data``."""
        for byte in data:
            if byte == _FLUSH:
                if self._text and not self._skips:
                    yield Malformed("JSON parse error, a byte that is not UTF-8")
                self._skips = False
                self._forget()
            elif self._skips:
                self._skips = byte != _NEWLINE
            elif (why := self._take(byte)) is not None:
                self._skips = byte != _NEWLINE
                self._forget()
                yield Malformed(why)
            elif self._text and not self._depth and not self._quote and self._is_end(byte):
                yield _parse(bytes(self._text))
                self._forget()

    @staticmethod
    def _is_end(byte: int) -> bool:
        return byte in b"\"'}] \t\r\n"

    def _take(self, byte: int) -> str | None:
        """Add a byte to the text. Return what is wrong with it, or None."""
        if self._quote:
            return self._take_character(byte)
        if byte in b"{[":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                return "JSON nesting depth limit exceeded"
        elif byte in b"}]":
            self._depth -= 1
            if self._depth < 0:
                return "JSON parse error, expecting value"
        elif byte in (_DOUBLE, _SINGLE):
            self._quote, byte = byte, _DOUBLE
        elif byte in b" \t\r\n" and not self._depth:
            return None
        return self._add(byte)

    def _take_character(self, byte: int) -> str | None:
        if byte < _SPACE:
            return "JSON parse error, a control character in a string"
        if self._is_escaped:
            self._is_escaped = False
            return self._add(byte) if byte == _SINGLE else self._add(_BACKSLASH, byte)
        if byte == _BACKSLASH:
            self._is_escaped = True
            return None
        if byte == self._quote:
            self._quote, byte = 0, _DOUBLE
        elif byte == _DOUBLE:
            return self._add(_BACKSLASH, byte)
        return self._add(byte)

    def _add(self, *found: int) -> str | None:
        self._text += bytes(found)
        return None if len(self._text) <= MAX_MESSAGE else "JSON message size limit exceeded"


def _parse(text: bytes) -> Any:
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        return Malformed(f"JSON parse error, {error.msg[:1].lower()}{error.msg[1:]}")
    except UnicodeDecodeError:
        return Malformed("JSON parse error, a byte that is not UTF-8")
    except ValueError as error:
        return Malformed(f"JSON parse error, {error}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"invalid keyword '{text}'")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("a number that is too large")
    return int(text)


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message, with the end of its line."""
    return json.dumps(message).encode() + b"\r\n"
