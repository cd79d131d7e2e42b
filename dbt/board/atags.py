"""ATAGs: the list of tagged records that describes the board to kernels from before device trees.

Linux, Documentation/arch/arm/booting.rst, 4b, and arch/arm/include/uapi/asm/setup.h. A record is its size in words,
header included, its tag, and its data.
"""

from __future__ import annotations

import struct

from dbt.abi.addresses import Gpa

_NONE, _CORE, _MEM, _INITRD2, _CMDLINE = 0x00000000, 0x54410001, 0x54410002, 0x54420005, 0x54410009
_FLAG_READ_ONLY, _PAGE_SIZE, _ROOT_DEVICE = 1, 4096, 0


def tag_list(memory: int, command_line: bytes = b"", initrd: tuple[Gpa, int] | None = None) -> bytes:
    """Return the list for a RAM of ``memory`` bytes at address 0. ``initrd`` is [start, end) of the RAM disk."""
    tags = _tag(_CORE, struct.pack("<III", _FLAG_READ_ONLY, _PAGE_SIZE, _ROOT_DEVICE))
    tags += _tag(_MEM, struct.pack("<II", memory, 0))
    if initrd is not None:
        tags += _tag(_INITRD2, struct.pack("<II", initrd[0], initrd[1] - initrd[0]))
    if command_line:
        tags += _tag(_CMDLINE, command_line + b"\0")
    return tags + struct.pack("<II", 0, _NONE)


def _tag(tag: int, data: bytes) -> bytes:
    data += bytes(-len(data) % 4)
    return struct.pack("<II", 2 + len(data) // 4, tag) + data
