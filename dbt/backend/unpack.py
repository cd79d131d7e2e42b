"""Decompression of data from a file that somebody else may have written, up to a size that the host can bear."""

from __future__ import annotations

import zlib

#: The most bytes that one compressed part may become. The largest in a trace of Linux has some megabytes.
MOST_UNPACKED = 1 << 28


def unpack(content: bytes, most: int = MOST_UNPACKED) -> bytes:
    """Return the decompressed bytes. Raises ValueError if they are more than the limit, zlib.error if damaged."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(content, most)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"a compressed part is not complete, or more than {most >> 20} MB")
    return found
