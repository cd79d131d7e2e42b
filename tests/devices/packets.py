"""Frames with packets of TCP and UDP."""

from __future__ import annotations

#: The addresses at the beginning of each frame.
ADDRESSES = bytes(range(12))


def packet(protocol: int, payload: bytes, version: int, vlan: bool, options: int = 0) -> tuple[bytes, int, bytes]:
    """Return a frame with random garbage as its checksum, where the segment begins, and its pseudo header."""
    size, addresses = len(payload), bytes(range(1, 9 if version == 4 else 33))
    if version == 4:
        words = 5 + options
        head = bytes([0x40 | words, 0]) + (4 * words + size).to_bytes(2, "big") + bytes(5) + bytes([protocol, 0, 0])
        head += addresses + bytes(4 * options)
    else:
        extension = bytes([protocol, options - 1]) + bytes(8 * options - 2) if options else b""
        first = 60 if options else protocol
        head = b"\x60\0\0\0" + (len(extension) + size).to_bytes(2, "big") + bytes([first, 64]) + addresses + extension
    kind = b"\x08\0" if version == 4 else b"\x86\xdd"
    frame = ADDRESSES + (b"\x81\0\0\7" if vlan else b"") + kind + head
    return frame + payload, len(frame), addresses + size.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def segment(content: bytes, version: int, options: int = 0, vlan: bool = False) -> bytes:
    """Return a frame with a segment of TCP, with PSH, ACK and CWR, number 0xFFFFFF00, and words of options."""
    header = bytes(4) + b"\xff\xff\xff\0" + bytes(4) + bytes([5 + options << 4, 0x98]) + bytes(6 + 4 * options)
    return packet(6, header + content, version, vlan)[0]
