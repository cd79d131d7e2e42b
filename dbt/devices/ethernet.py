"""Frames of Ethernet, as network cards of all kinds need them: limits, the announcement of a card, checksums, the
segments of TCP that a long one is, and the long one that segments are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

ADDRESS: Final = 6
BROADCAST: Final = b"\xff" * ADDRESS
#: Frames that wait for the driver at most, and the bytes of one. What comes then is lost, as on a real network.
MOST_FRAMES: Final = 256
LONGEST_FRAME: Final = 65_535
SHORTEST_FRAME: Final = 14
VLAN_TYPE: Final = b"\x81\0"
#: The type of a frame with a request of reverse ARP, and how the request begins: Ethernet, IPv4, and the lengths of
#: their addresses.
_REVERSE_ARP: Final = bytes.fromhex("8035 0001 0800 06 04 0003")
#: The bytes of the shortest frame on a wire, without its checksum.
_SHORTEST_SENT: Final = 60
_IPV4, _IPV6 = b"\x08\0", b"\x86\xdd"
_IPV4_HEADER, _IPV6_HEADER = 20, 40
#: Where TCP and UDP have their checksums, and how long their headers are at least.
_CHECKSUMS: Final = {6: (16, 20), 17: (6, 8)}
_TCP, _UDP = 6, 17
#: The header of TCP: its shortest, where its length and its flags are, and flags of the last and of the first segment.
_TCP_HEADER, _TCP_LENGTH, _TCP_FLAGS = 20, 12, 13
_OF_LAST, _OF_FIRST = 0x09, 0x80  # PSH and FIN, CWR
#: The flags of each segment that is joined with others, but for those of the last one: ACK, and what ECE is.
_ACK, _ECE = 0x10, 0x40
#: The segments that one frame becomes at most: those of the longest frame with 512 bytes each.
MOST_SEGMENTS: Final = 128
#: The bytes of headers that each segment begins with at most. Longer ones would make a hundred long frames of one.
_LONGEST_HEADERS: Final = 512
#: Headers of IPv6 that may be before TCP's or UDP's: hop-by-hop options, routing, destination options.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 0x3FFF
_MODULUS: Final = 0xFFFF


class ChecksumError(ValueError):
    """Raised for a frame that has no checksum of TCP or UDP to be filled in, or no segment of TCP to be divided."""


def announcement(address: bytes) -> bytes:
    """Return a frame that tells a network where a card is, as QEMU's do: a request of reverse ARP (RFC 903)."""
    owner = address + bytes(4)
    return BROADCAST + address + _REVERSE_ARP + (owner * 2).ljust(_SHORTEST_SENT - 22, b"\0")


def with_checksum(frame: bytes) -> bytes:
    """Return a frame with the checksum of its TCP or UDP filled in (RFC 1071). Raise ChecksumError if it has none, or
    if its headers make no sense.
    """
    _, (protocol, addresses, start, end) = _headers(frame)
    if protocol not in _CHECKSUMS:
        raise ChecksumError(f"the frame has protocol {protocol}, which is neither TCP nor UDP")
    offset, header = _CHECKSUMS[protocol]
    if not start + header <= end <= len(frame):
        raise ChecksumError("the frame is too short for its headers")
    place = start + offset
    found = _sum(addresses, protocol, frame[start:place] + b"\0\0" + frame[place + 2 : end])
    if not found and protocol == _UDP:
        found = _MODULUS  # because 0 says that there is no checksum (RFC 768)
    return frame[:place] + found.to_bytes(2, "big") + frame[place + 2 :]


def segments(frame: bytes, size: int) -> list[bytes]:
    """Return the frames that one with a long segment of TCP becomes, with ``size`` bytes of its content each, and with
    all checksums. Raise ChecksumError if it has no such segment, or if they would be more than :data:`MOST_SEGMENTS`.
    """
    at, (protocol, addresses, start, end) = _headers(frame)
    if protocol != _TCP or not start + _TCP_HEADER <= end <= len(frame):
        raise ChecksumError("the frame has no segment of TCP")
    content = start + (frame[start + _TCP_LENGTH] >> 4) * 4
    if not start + _TCP_HEADER <= content <= end:
        raise ChecksumError("the header of TCP is longer than its segment, or too short")
    if content > _LONGEST_HEADERS:
        raise ChecksumError(f"the headers have {content} bytes, and at most {_LONGEST_HEADERS} are repeated")
    if not size or end - content > size * MOST_SEGMENTS:
        raise ChecksumError(f"to send {end - content} bytes by {size} takes too many segments")
    found = []
    for begin in range(content, end, size) if end > content else (content,):
        head, data = bytearray(frame[:content]), frame[begin : min(begin + size, end)]
        _set_length(head, at, content - at + len(data), (begin - content) // size)
        number = int.from_bytes(head[start + 4 : start + 8], "big") + begin - content
        head[start + 4 : start + 8] = (number & 0xFFFFFFFF).to_bytes(4, "big")
        if begin + size < end:
            head[start + _TCP_FLAGS] &= ~_OF_LAST
        if begin > content:
            head[start + _TCP_FLAGS] &= ~_OF_FIRST
        head[start + 16 : start + 18] = bytes(2)
        head[start + 16 : start + 18] = _sum(addresses, _TCP, head[start:] + data).to_bytes(2, "big")
        found.append(bytes(head) + data)
    return found


class Joined(NamedTuple):
    """A frame that ``segments`` frames are. They have ``size`` bytes of its content each, the last one at most so many.
    Where TCP has its checksum, there is the sum of the pseudo header, to which the rest is to be added.
    """

    frame: bytes
    segments: int
    size: int


class _Segment(NamedTuple):
    """A frame with a segment of TCP that can be joined with others. ``like`` are its headers without what differs
    between those that are joined. ``content`` is where its content begins, and ``identity`` the packet's.
    """

    like: bytes
    identity: int
    number: int
    content: int
    is_last: bool


def joined(frames: Sequence[bytes], first: int, most: int) -> Joined | None:
    """Return the frame of at most ``most`` bytes that the frames from number ``first`` on are, as many as possible, or
    None if that one cannot be joined with the next one.

    It is what Linux' GRO does, with frames that follow each other. They are consecutive segments of one connection,
    with checksums that are right. Headers and options are alike, and all but the last have the same size and no flags
    but ACK and ECE, so :func:`segments` of the frame would be these frames. Their packets' identities count, or are
    equal, which is to say that there are none: passt's are 0, also where packets might be fragmented.
    """
    one = _segment(frames[first])
    if one is None or one.is_last:
        return None
    size = len(frames[first]) - one.content
    pieces, total, step, is_last = [frames[first]], len(frames[first]), 0, False
    for frame in islice(frames, first + 1, first + MOST_SEGMENTS):
        length = len(frame) - one.content
        if is_last or length > size or total + length > most:
            break
        other = _segment(frame)
        if other is None or other.like != one.like or other.number != one.number + total - one.content & 0xFFFFFFFF:
            break
        if len(pieces) == 1:
            step = other.identity - one.identity & 0xFFFF
        if step > 1 or other.identity != one.identity + step * len(pieces) & 0xFFFF:
            break
        pieces.append(frame)
        total += length
        is_last = other.is_last or length < size
    if len(pieces) == 1:
        return None
    head = bytearray(pieces[0][: one.content])
    _, (_, addresses, start, _) = _headers(pieces[0])
    _set_length(head, SHORTEST_FRAME, total - SHORTEST_FRAME, 0)
    head[start + _TCP_FLAGS] |= pieces[-1][start + _TCP_FLAGS] & _OF_LAST
    pseudo = int.from_bytes(addresses, "big") + _TCP + total - start
    head[start + 16 : start + 18] = (_MODULUS - _complement(pseudo)).to_bytes(2, "big")
    return Joined(bytes(head) + b"".join([piece[one.content :] for piece in pieces]), len(pieces), size)


def _segment(frame: bytes) -> _Segment | None:
    """Return what a frame is if it has a segment of TCP that can be joined with others, or None."""
    try:
        at, (protocol, addresses, start, end) = _headers(frame)
    except ChecksumError:
        return None
    version = frame[SHORTEST_FRAME] >> 4
    is_plain = start - at == (_IPV4_HEADER if version == 4 else _IPV6_HEADER)
    if not is_plain or at != SHORTEST_FRAME or protocol != _TCP or end != len(frame) or start + _TCP_HEADER > end:
        return None
    content, flags = start + (frame[start + _TCP_LENGTH] >> 4) * 4, frame[start + _TCP_FLAGS]
    if not start + _TCP_HEADER <= content < end or flags & ~(_OF_LAST | _ECE) != _ACK:
        return None
    if (version == 4 and int.from_bytes(frame[at:start], "big") % _MODULUS) or _sum(addresses, _TCP, frame[start:]):
        return None
    like = bytearray(frame[:content])
    length = at + (2 if version == 4 else 4)
    differ = ((length, 2), (start + 4, 4), (start + 16, 2), *(((at + 4, 2), (at + 10, 2)) if version == 4 else ()))
    for place, size in differ:
        like[place : place + size] = bytes(size)
    like[start + _TCP_FLAGS] &= ~_OF_LAST
    identity = int.from_bytes(frame[at + 4 : at + 6], "big") if version == 4 else 0
    number = int.from_bytes(frame[start + 4 : start + 8], "big")
    return _Segment(bytes(like), identity, number, content, bool(flags & _OF_LAST))


def _set_length(head: bytearray, at: int, size: int, number: int) -> None:
    """Let the packet that begins at ``at`` have ``size`` bytes, and be the one with a number of several."""
    if head[at] >> 4 == 6:
        head[at + 4 : at + 6] = (size - _IPV6_HEADER).to_bytes(2, "big")
        return
    head[at + 2 : at + 4] = size.to_bytes(2, "big")
    identity = int.from_bytes(head[at + 4 : at + 6], "big") + number
    head[at + 4 : at + 6] = (identity & 0xFFFF).to_bytes(2, "big")
    head[at + 10 : at + 12] = bytes(2)
    header = head[at : at + (head[at] & 15) * 4]
    head[at + 10 : at + 12] = _complement(int.from_bytes(header, "big")).to_bytes(2, "big")


def _headers(frame: bytes) -> tuple[int, tuple[int, bytes, int, int]]:
    """Return where the packet begins, and its protocol, its addresses, and where its content begins and ends."""
    at = 18 if frame[12:14] == VLAN_TYPE else SHORTEST_FRAME
    match frame[at - 2 : at]:
        case b"\x08\0":
            return at, _ipv4(frame, at)
        case b"\x86\xdd":
            return at, _ipv6(frame, at)
        case _:
            raise ChecksumError("the frame is neither IPv4 nor IPv6")


def _ipv4(frame: bytes, at: int) -> tuple[int, bytes, int, int]:
    """Return protocol and addresses, and where the content of the packet begins and ends."""
    header = frame[at : at + _IPV4_HEADER]
    if len(header) < _IPV4_HEADER or header[0] >> 4 != 4 or (header[0] & 15) * 4 < _IPV4_HEADER:
        raise ChecksumError("the frame has no header of IPv4")
    if int.from_bytes(header[6:8], "big") & _FRAGMENT:
        raise ChecksumError("the frame has a fragment of a packet")
    return header[9], header[12:20], at + (header[0] & 15) * 4, at + int.from_bytes(header[2:4], "big")


def _ipv6(frame: bytes, at: int) -> tuple[int, bytes, int, int]:
    """Return the same of a packet of IPv6."""
    header = frame[at : at + _IPV6_HEADER]
    if len(header) < _IPV6_HEADER or header[0] >> 4 != 6:
        raise ChecksumError("the frame has no header of IPv6")
    start = at + _IPV6_HEADER
    end, protocol = start + int.from_bytes(header[4:6], "big"), header[6]
    while protocol in _EXTENSIONS and start + 8 <= min(end, len(frame)):
        protocol, start = frame[start], start + 8 * (frame[start + 1] + 1)
    return protocol, header[8:40], start, end


def _sum(addresses: bytes, protocol: int, segment: bytes | bytearray) -> int:
    """Return the checksum of a segment and its pseudo header."""
    pseudo = int.from_bytes(addresses, "big") + protocol + len(segment)
    return _complement(pseudo + int.from_bytes(segment + bytes(len(segment) % 2), "big"))


def _complement(total: int) -> int:
    """Return the checksum of words, as one number: their sum in ones' complement is one modulo 2^16 - 1."""
    rest = total % _MODULUS
    return _MODULUS - rest if rest else 0
