"""Small kernels in each of the wrappings that real ones come in."""

from __future__ import annotations

import struct
import zlib

from tests.assembler import assemble

#: Stores R0 to R2 and the CPSR at 0x3000, and ends with a breakpoint that nobody handles.
CODE = assemble("mov r5, #0x3000 ; mrs r6, cpsr ; stm r5, {r0, r1, r2, r6} ; bkpt #0")


def zimage(payload: bytes = CODE, *, size: int | None = None, magic: int = 0x016F2818) -> bytes:
    """NOPs, a branch over the header, and the payload; ``size`` is what the header says."""
    length = 0x30 + len(payload)
    head = assemble("mov r0, r0 ; " * 8 + "b 0x10030", 0x10000)
    return head + struct.pack("<III", magic, 0, length if size is None else size) + payload


def uimage(
    content: bytes,
    load: int = 0x8000,
    entry: int | None = None,
    *,
    system: int = 5,
    processor: int = 2,
    kind: int = 2,
    packing: int = 0,
) -> bytes:
    """As ``mkimage`` makes it."""

    def header(checksum: int) -> bytes:
        return struct.pack(
            ">7I4B32s",
            *(0x27051956, checksum, 0, len(content), load, load if entry is None else entry, zlib.crc32(content)),
            *(system, processor, kind, packing, b"test"),
        )

    return header(zlib.crc32(header(0))) + content
