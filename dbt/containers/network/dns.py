"""Messages of the domain name system (RFC 1035), as far as names of containers need them.

A question comes from a guest: :func:`parse_question` takes any bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("!6H")
_TYPE_AND_CLASS: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_LONGEST_NAME: Final = 255
_IS_ANSWER, _RECURSION_WANTED, _RECURSION_AVAILABLE, _TRUNCATED = 0x8000, 0x0100, 0x0080, 0x0200
_OPERATION: Final = 0x7800
#: Types and the class of records, and how long answers may be kept, in seconds: as docker's server has it.
A, PTR, AAAA, ANY, OPT = 1, 12, 28, 255, 41
_INTERNET: Final = 1
_LIFE: Final = 600
#: Where a name is that was in the message before: the question's.
_SAME_NAME: Final = b"\xc0\x0c"
_REVERSE: Final = (b"in-addr", b"arpa")
#: Response codes.
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_NAME, NOT_IMPLEMENTED = range(5)
#: A datagram has so many bytes at most, unless who asks says more.
DATAGRAM: Final = 512
#: The least bytes of a message: its header.
LEAST: Final = 12
_LARGEST_DATAGRAM: Final = 4096


class BadMessage(ValueError):
    """Raised for bytes that are no question."""


class Question(NamedTuple):
    """A question: its number, flags, the labels of the name, its type, and its bytes. ``room`` is how large a datagram
    who asks takes.
    """

    id: int
    flags: int
    labels: tuple[bytes, ...]
    kind: int
    section: bytes
    room: int

    @property
    def name(self) -> str:
        """The name with dots, in small letters. Bytes that are no letters of ASCII stand for themselves."""
        return b".".join(self.labels).decode("latin-1").lower()

    @property
    def reverse(self) -> IPv4Address | None:
        """The address whose name is asked for, or None if it is not one of IPv4."""
        labels = [label.lower() for label in self.labels]
        if self.kind != PTR or len(labels) != 6 or tuple(labels[4:]) != _REVERSE:
            return None
        try:
            return IPv4Address(b".".join(labels[3::-1]).decode("ascii"))
        except (AddressValueError, UnicodeDecodeError):
            return None


def parse_question(message: bytes) -> Question:
    """Return the question of a message, which has to have exactly one. Raise BadMessage."""
    if len(message) < _HEADER.size:
        raise BadMessage("the message is too short")
    number, flags, questions, answers, _, more = _HEADER.unpack_from(message)
    if flags & _IS_ANSWER or questions != 1 or answers:
        raise BadMessage("the message is no question")
    labels, at = _labels(message, _HEADER.size)
    if at + _TYPE_AND_CLASS.size > len(message):
        raise BadMessage("the question is too short")
    kind, group = _TYPE_AND_CLASS.unpack_from(message, at)
    at += _TYPE_AND_CLASS.size
    if group != _INTERNET:
        raise BadMessage("the question is not about the internet")
    room = _room(message, at) if more else DATAGRAM
    return Question(number, flags, labels, kind, message[_HEADER.size : at], room)


def _labels(message: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Return the labels of the name at a place, and where it ends. A question's name refers to no other one."""
    found = []
    begin = at
    while at < len(message) and (size := message[at]):
        if size > 63 or at + 1 + size >= len(message) or at + 1 + size - begin >= _LONGEST_NAME:
            raise BadMessage("the name is none")
        found.append(message[at + 1 : at + 1 + size])
        at += 1 + size
    if at >= len(message):
        raise BadMessage("the name has no end")
    return tuple(found), at + 1


def _room(message: bytes, at: int) -> int:
    """Return how large a datagram may be: what the first additional record says, if that is OPT (RFC 6891)."""
    if len(message) - at < 11 or message[at]:
        return DATAGRAM
    kind, size = _TYPE_AND_CLASS.unpack_from(message, at + 1)
    return min(max(size, DATAGRAM), _LARGEST_DATAGRAM) if kind == OPT else DATAGRAM


def answer(question: Question, code: int, records: Sequence[bytes] = ()) -> bytes:
    """Return an answer with records (:func:`address_record`, :func:`name_record`)."""
    flags = _IS_ANSWER | question.flags & (_OPERATION | _RECURSION_WANTED) | _RECURSION_AVAILABLE | code
    header = _HEADER.pack(question.id, flags, 1, len(records), 0, 0)
    return header + question.section + b"".join(records)


def failure(message: bytes, code: int) -> bytes:
    """Return an answer without anything, to a message that has a header at least."""
    number, flags = struct.unpack_from("!HH", message)
    kept = flags & (_OPERATION | _RECURSION_WANTED)
    return _HEADER.pack(number, _IS_ANSWER | kept | _RECURSION_AVAILABLE | code, 0, 0, 0, 0)


def address_record(address: IPv4Address) -> bytes:
    return _SAME_NAME + _RECORD.pack(A, _INTERNET, _LIFE, len(address.packed)) + address.packed


def name_record(name: str) -> bytes:
    labels = [label.encode("ascii", "replace")[:63] for label in name.split(".") if label]
    data = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return _SAME_NAME + _RECORD.pack(PTR, _INTERNET, _LIFE, len(data)) + data


def truncated(message: bytes, question: Question) -> bytes:
    """Return an answer that says that the one in ``message`` is too long for a datagram."""
    _, flags = struct.unpack_from("!HH", message)
    return _HEADER.pack(question.id, flags | _TRUNCATED, 1, 0, 0, 0) + question.section


def is_answer_to(message: bytes, question: Question) -> bool:
    """Return whether a message is an answer to a question, as far as a resolver's is believed."""
    if len(message) < _HEADER.size + len(question.section):
        return False
    number, flags, questions = struct.unpack_from("!HHH", message)
    section = message[_HEADER.size : _HEADER.size + len(question.section)]
    return bool(
        number == question.id and flags & _IS_ANSWER and questions == 1 and section.lower() == question.section.lower()
    )


def with_id(message: bytes, number: int) -> bytes:
    """Return a message with another number."""
    return number.to_bytes(2, "big") + message[2:]
