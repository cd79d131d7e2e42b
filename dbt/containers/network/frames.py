"""What of frames a switch looks at: Ethernet (IEEE 802.3), ARP (RFC 826), the header of IPv4 (RFC 791), ICMP (RFC 792).

All of it comes from guests: the functions take any bytes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

BROADCAST: Final = b"\xff" * 6
IPV4, ARP = b"\x08\x00", b"\x08\x06"
_HEADER: Final = 14
_MAC: Final = 6
#: Hardware type Ethernet, protocol IPv4, and the sizes of their addresses.
_ARP_KIND: Final = b"\x00\x01\x08\x00\x06\x04"
_ARP: Final = struct.Struct("!6sH6s4s6s4s")
_ARP_ASKS, _ARP_ANSWERS = 1, 2
_IP_LEAST: Final = 20
_ICMP, _ECHO, _ECHO_REPLY = 1, 8, 0
_TCP, _RESET, _ACKNOWLEDGES = 6, 4, 16
#: The first bytes of addresses of groups.
_GROUPS: Final = 0xE0


class Arp(NamedTuple):
    """An ARP message: whether it asks, and the addresses of its sender and of its target."""

    asks: bool
    mac: bytes
    address: bytes
    target: bytes


def arp_of(frame: bytes) -> Arp | None:
    """Return the ARP message of a frame, or None if it has none that is complete."""
    if len(frame) < _HEADER + _ARP.size:
        return None
    kind, operation, mac, address, _, target = _ARP.unpack_from(frame, _HEADER)
    if kind != _ARP_KIND or operation not in (_ARP_ASKS, _ARP_ANSWERS):
        return None
    return Arp(operation == _ARP_ASKS, mac, address, target)


def arp_answer(question: Arp, mac: bytes) -> bytes:
    """Return the frame that says that the target of a question is at ``mac``."""
    message = _ARP.pack(_ARP_KIND, _ARP_ANSWERS, mac, question.target, question.mac, question.address)
    return question.mac + mac + ARP + message


class Packet(NamedTuple):
    """The addresses of an IPv4 packet, and its protocol."""

    source: bytes
    target: bytes
    protocol: int
    header: int

    @property
    def is_for_many(self) -> bool:
        return self.target[0] >= _GROUPS


def packet_of(frame: bytes) -> Packet | None:
    """Return what the header of a frame's IPv4 packet says, or None if it has none that is complete."""
    if len(frame) < _HEADER + _IP_LEAST or frame[_HEADER] >> 4 != 4:
        return None
    header = (frame[_HEADER] & 15) * 4
    total = int.from_bytes(frame[_HEADER + 2 : _HEADER + 4], "big")
    if not _IP_LEAST <= header <= total <= len(frame) - _HEADER:
        return None
    return Packet(frame[_HEADER + 12 : _HEADER + 16], frame[_HEADER + 16 : _HEADER + 20], frame[_HEADER + 9], header)


def echo_answer(frame: bytes, packet: Packet) -> bytes | None:
    """Return the answer of a host that is asked by ping, or None if the frame is no such question."""
    at = _HEADER + packet.header
    end = _HEADER + int.from_bytes(frame[_HEADER + 2 : _HEADER + 4], "big")
    is_fragment = int.from_bytes(frame[_HEADER + 6 : _HEADER + 8], "big") & 0x3FFF
    if packet.protocol != _ICMP or is_fragment or end - at < 8 or frame[at] != _ECHO or packet.header != _IP_LEAST:
        return None
    header = bytearray(frame[_HEADER:at])
    header[6:8], header[8], header[10:12] = b"\0\0", 64, b"\0\0"
    header[12:16], header[16:20] = packet.target, packet.source
    header[10:12] = _checksum(bytes(header))
    message = bytearray(frame[at:end])
    message[0], message[2:4] = _ECHO_REPLY, b"\0\0"
    message[2:4] = _checksum(bytes(message))
    return frame[_MAC : 2 * _MAC] + frame[:_MAC] + IPV4 + bytes(header) + bytes(message)


def acknowledging_reset(frame: bytes) -> bytes:
    """Return a frame in which a TCP reset says that it acknowledges, as it has to for who tries to connect (RFC 9293,
    3.10.7.3). Some versions of passt have the right number there and leave the flag out.
    """
    packet = packet_of(frame)
    at = _HEADER + (packet.header if packet is not None else 0)
    if packet is None or packet.protocol != _TCP or len(frame) < at + 20 or frame[at + 13] != _RESET:
        return frame
    changed = bytearray(frame)
    changed[at + 13] = _RESET | _ACKNOWLEDGES
    total = (~int.from_bytes(frame[at + 16 : at + 18], "big") & 0xFFFF) + _ACKNOWLEDGES
    changed[at + 16 : at + 18] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _checksum(data: bytes) -> bytes:
    """Return the internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
