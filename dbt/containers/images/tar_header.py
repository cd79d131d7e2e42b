"""One header of a tar archive: ustar, GNU tar and old forms, and the extended headers of pax."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dbt.containers.images.errors import BadLayer

BLOCK: Final = 512
_XATTR: Final = b"SCHILY.xattr."
#: name, mode, uid, gid, size, mtime, checksum, type, linkname, magic, user, group, major, minor, prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
#: Where a header of GNU tar for a sparse file has its first pieces, and a block that follows has further ones.
_SPARSE_FIRST, _SPARSE_PIECES = 386, 4
_SPARSE_MORE: Final = 21
#: Digits of a record's length in an extended header, and the space behind them.
_LONGEST_LENGTH: Final = 20
_MOST_PIECES: Final = 1 << 16
_MOST_SIZE: Final = 1 << 62
_LAST_SECOND: Final = (1 << 63) // 10**9


class Header(NamedTuple):
    """A header as it stands. ``kind`` is its type flag; names are bytes. ``size`` is that of the data that follow."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    major: int
    minor: int


class Pieces(NamedTuple):
    """A sparse file: the offset and size of each piece that is in the archive, and the size of the file."""

    pieces: list[tuple[int, int]]
    size: int


def number(field: bytes) -> int:
    """Return the number in a field: octal digits, or binary if the first bit is set. Raise BadLayer."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    digits = field.strip(b" \0").partition(b"\0")[0].strip(b" ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise BadLayer(f"the archive has a header with {field!r} in place of a number") from None


def read_header(block: bytes) -> Header:
    """Return the header in a block of 512 bytes. Raise BadLayer."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix = _HEADER.unpack(block)
    expected = number(checksum)
    if expected != sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20 and expected != _signed_sum(block):
        raise BadLayer("the archive has a header with a wrong checksum")
    name, link = name.partition(b"\0")[0], link.partition(b"\0")[0]
    is_posix = magic == b"ustar\x0000"
    if is_posix and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    if not magic.startswith(b"ustar") or kind not in b"34":
        major = minor = b"\0"
    bytes_that_follow = number(size)
    if not 0 <= bytes_that_follow < _MOST_SIZE:
        raise BadLayer(f"the archive has a header with the size {bytes_that_follow}")
    return Header(
        *(name, number(mode), number(uid), number(gid), bytes_that_follow, number(mtime), kind, link),
        *(number(major), number(minor)),
    )


def _signed_sum(block: bytes) -> int:
    """Return the checksum that some old programs computed, whose bytes had a sign."""
    plain = block[:148] + b" " * 8 + block[156:]
    return sum(plain) - 256 * sum(byte > 0x7F for byte in plain)


# -- pax -------------------------------------------------------------------------------------------


def pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of an extended header, in their order. Raise BadLayer."""
    found, at = [], 0
    while at < len(data):
        length, space, _ = data[at : at + _LONGEST_LENGTH].partition(b" ")
        start, end = at + len(length) + 1, at + int(length) if space and length.isdigit() else 0
        key, equals, value = data[start : end - 1].partition(b"=")
        if not start < end <= len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise BadLayer("the archive has a damaged extended header")
        found.append((key, value))
        at = end
    return found


def pax_number(value: bytes) -> int:
    """Return a decimal number of an extended header. Raise BadLayer."""
    if not value.isdigit() or len(value) > 19:
        raise BadLayer(f"the archive has an extended header with {value[:40]!r} in place of a number")
    return int(value)


def pax_time(value: bytes) -> tuple[int, int]:
    """Return a time of an extended header, in seconds and nanoseconds. Raise BadLayer."""
    whole, _, rest = value.partition(b".")
    if not whole.removeprefix(b"-").isdigit() or len(whole) > 19 or not (rest.isdigit() or not rest):
        raise BadLayer(f"the archive has an extended header with {value[:40]!r} in place of a time")
    return bounded_time(int(whole), int(rest[:9].ljust(9, b"0")))


def bounded_time(seconds: int, nanoseconds: int = 0) -> tuple[int, int]:
    """Return the time, or 1970 for one that docker cannot represent."""
    return (seconds, nanoseconds) if 0 <= seconds < _LAST_SECOND else (0, 0)


def pax_xattr(key: bytes) -> bytes | None:
    """Return the name of the extended attribute that a record sets, or None if it sets none."""
    return key[len(_XATTR) :] if key.startswith(_XATTR) else None


# -- sparse files ----------------------------------------------------------------------------------


def gnu_sparse(block: bytes) -> tuple[list[int], bool, int]:
    """Return what GNU tar's header of a sparse file says: offsets and sizes in turn, whether more follow, the size."""
    numbers = _sparse_numbers(block[_SPARSE_FIRST : _SPARSE_FIRST + 24 * _SPARSE_PIECES])
    return numbers, block[482] != 0, number(block[483:495])


def gnu_sparse_more(block: bytes) -> tuple[list[int], bool]:
    """Return the same of a block that follows the header."""
    return _sparse_numbers(block[: 24 * _SPARSE_MORE]), block[504] != 0


def _sparse_numbers(data: bytes) -> list[int]:
    found = []
    for at in range(0, len(data), 24):
        if data[at] == 0:
            break
        found += [number(data[at : at + 12]), number(data[at + 12 : at + 24])]
    return found


def sparse(numbers: list[int], size: int, there: int) -> Pieces:
    """Return the pieces of a file of ``size`` bytes, ``there`` of which are in the archive. Raise BadLayer."""
    pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0:
            raise BadLayer("the archive has a sparse file whose pieces overlap")
        end = offset + length
    good = len(numbers) % 2 == 0 and len(pieces) <= _MOST_PIECES and 0 <= size < _MOST_SIZE and end <= size
    if not good or sum(length for _, length in pieces) != there:
        raise BadLayer("the archive has a sparse file whose pieces are not its size")
    return Pieces(pieces, size)
