"""Decompressing what comes from a file of somebody else, up to a size that the host can bear."""

from __future__ import annotations

import zlib

#: What one compressed part may become, in bytes. The largest of a trace of Linux has some megabytes.
MOST_UNPACKED = 1 << 28


def unpack(content: bytes, most: int = MOST_UNPACKED) -> bytes:
    """What was compressed. ValueError if it is more than so many bytes; zlib.error if it is damaged."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(content, most)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"a compressed part is not complete, or more than {most >> 20} MB")
    return found
