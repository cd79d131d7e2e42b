"""The stitcher's workspace, which native code and Python share: fields, arrays and, where it is kept, a log.

Sizes and offsets are in bytes. Every number of the layout has its one home here.
"""

from __future__ import annotations

import struct

from dbt.abi.layout import GUEST_PAGES, MAX_BLOCK, OPS_PER_PAGE, STITCH_COUNTERS

#: Fields of 8 bytes each.
FIELDS = (
    "write",  # HVA of the arena, where it can be written
    "execute",  # ... and where it is executed
    "size",  # bytes of the arena
    "used",  # bytes of it that are in use
    "counts",  # how many heads of loops and functions can count their instructions: 0, or STITCH_COUNTERS
    "warm",  # after so many instructions such a head is warm,
    "hot",  # and after each further so many it is hot
    "counters",  # how many counters are in use
    "measures",  # 1: stitched code keeps the number of instructions that it executes
    "resets",  # how often everything was dropped
    "insns",  # instructions stitched since the start
    "blocks",  # blocks stitched since the start
    "first_block",  # how many of them had been stitched when everything was dropped the last time
    "dropped_bytes",  # bytes of code and stubs that were dropped with everything
    "pages",  # entries of the list of pages
    "fixups",  # entries of the list of fixups
    "skips",  # entries of the list of jumps over an instruction
    "code",  # HVA of the sections of the image
    "stencils",
    "patches",
    "forms",
    "dropped",  # how often the stitched code of a page was dropped because it was written over
    "root",  # number of the op from which a page is being stitched
    "block_log",  # HVA of BLOCK entries, 0: blocks are not logged
    "stencil_log",  # HVA of a u16 for each byte of the arena: 1 + the stencil that begins there, 0: not logged
)
FIELD_OFFSETS = {name: 8 * number for number, name in enumerate(FIELDS)}

#: The offset of the first code in an arena. No place is 0, which means that there is none.
ARENA_START = 64
#: The most bytes of a stub, to which a jump goes that is not linked.
STUB_BYTES = 96

#: The most jumps of a stencil that are linked later. They, those of a head, and the one behind a block become fixups.
MAX_JUMPS = 16
#: The most jumps of a stencil over an instruction.
MAX_SKIPS = 2
_FIXUPS = (MAX_JUMPS + 3) * OPS_PER_PAGE
#: A block of the log (u32 each): number of its first op, offset in the arena, bytes, instructions, and number and
#: arrivals of the op from which it was stitched. Block number N is entry N modulo MAX_BLOCKS.
BLOCK = struct.Struct("<6I")
MAX_BLOCKS = 1 << 20
#: A form in the table of stencils (:mod:`dbt.backend.stencil_table`): the number of the stencil, or NO_STENCIL;
#: FormFlags; slot, ahead, unrolled_count, unrolled, as in FormStencil.
FORM = struct.Struct("<HBBBBH")
NO_STENCIL = 0xFFFF


def _array_offsets() -> tuple[dict[str, int], int]:
    arrays = (
        ("arguments", 4 * 32),  # of the special or unrolled stencil that is emitted
        ("marks", OPS_PER_PAGE + 8),  # a byte for each op of the page: see Mark in the stitcher
        ("rows", 2 * OPS_PER_PAGE),  # the decoder's row of each
        ("places", 4 * (OPS_PER_PAGE + 2)),  # the offset of the block that begins there, 0: none
        ("stack", 2 * 4 * OPS_PER_PAGE),  # ops whose code is still to be followed
        ("skip_list", 8 * MAX_SKIPS),
        ("fixup_list", 16 * _FIXUPS),  # offset of a jump's distance, and where it goes
        ("rewrites", GUEST_PAGES),  # of each page, how often its stitched code was dropped, and LISTED
        ("page_list", 4 * GUEST_PAGES),  # pages with stitched code
    )
    offsets: dict[str, int] = {}
    offset = 8 * len(FIELDS)
    for name, size in arrays:
        offset = (offset + 63) // 64 * 64
        offsets[name] = offset
        offset += size
    return offsets, offset


ARRAY_OFFSETS, WORKSPACE_SIZE = _array_offsets()
#: In ``rewrites``: the page is in the list of pages.
LISTED = 0x80

assert MAX_BLOCK < 128 and STITCH_COUNTERS < 1 << 16  # they are operands of one and two bytes
