"""Frames of Ethernet, as network cards of all kinds need them: limits, the announcement of a card, and checksums."""

from __future__ import annotations

from typing import Final

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
_UDP: Final = 17
#: Headers of IPv6 that may be before TCP's or UDP's: hop-by-hop options, routing, destination options.
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 0x3FFF
_MODULUS: Final = 0xFFFF


class ChecksumError(ValueError):
    """Raised for a frame that has no checksum of TCP or UDP to be filled in."""


def announcement(address: bytes) -> bytes:
    """Return a frame that tells a network where a card is, as QEMU's do: a request of reverse ARP (RFC 903)."""
    owner = address + bytes(4)
    return BROADCAST + address + _REVERSE_ARP + (owner * 2).ljust(_SHORTEST_SENT - 22, b"\0")


def with_checksum(frame: bytes) -> bytes:
    """Return a frame with the checksum of its TCP or UDP filled in (RFC 1071). Raise ChecksumError if it has none, or
    if its headers make no sense.
    """
    at = 18 if frame[12:14] == VLAN_TYPE else SHORTEST_FRAME
    match frame[at - 2 : at]:
        case b"\x08\0":
            protocol, addresses, start, end = _ipv4(frame, at)
        case b"\x86\xdd":
            protocol, addresses, start, end = _ipv6(frame, at)
        case _:
            raise ChecksumError("the frame is neither IPv4 nor IPv6")
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


def _sum(addresses: bytes, protocol: int, segment: bytes) -> int:
    """Return the checksum of a segment and its pseudo header. A sum in ones' complement is one modulo 2^16 - 1."""
    pseudo = int.from_bytes(addresses, "big") + protocol + len(segment)
    rest = (pseudo + int.from_bytes(segment + bytes(len(segment) % 2), "big")) % _MODULUS
    return _MODULUS - rest if rest else 0
