"""The image of the handlers: linked native code and the tables of the decoder, in one flat file.

Code is position-independent and refers to nothing outside the image, so loading it is a copy.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

import struct
from typing import NamedTuple

from dbt.abi.cpu import STITCHED_CALLEES
from dbt.backend.digest import digest

MAGIC = b"DBTIMG04"
_HEADER = struct.Struct("<8s32sI")
#: Functions that Python calls. They come first in the table of symbols.
ENTRY_POINTS = (
    "enter",
    "need_code_page",
    "invalidate_range",
    "code_flags",
    "give_up_code_page",
    "decode",
    "sentinel",
    "leave",
    "bypass",
    "arrive",
    "writable",
    "code_at",
    "regime_changed",
    "tlb_flush",
    "begin_epoch",
    "forget_epoch",
    "forget_writes",
    "undo_stores",
    "translate",
    "enter_exception",
    "take_interrupt",
    "vector_base",
    "report_data_abort",
    "report_prefetch_abort",
    "report_breakpoint",
    *STITCHED_CALLEES,
    "stitch",
    "drop_stitched",
    "unstitch_page",
    "divert_head",
    "put_into_file",
    "drop_equal",
    "map_equal",
)


class ImageDamaged(ValueError):
    """Raised for bytes that are not an image, or not the one that was written."""


class Image(NamedTuple):
    """The image. ``code`` is native code, ``symbols`` has lines ``offset name``; the rest are tables of the decoder
    (:mod:`dbt.backend.predecode`) and of the stitcher (:mod:`dbt.backend.stencil_table`). The file has the fields in
    their order. ``lists`` says where in ``pool`` the list of rows of each decode index begins.

    ``counting`` has the offsets of the handlers that count their executions in the op, ``callouts`` a line for the name
    of each callout, by number. With them statistics need not load the specification.
    """

    code: bytes
    lists: bytes
    pool: bytes
    rows: bytes
    guards: bytes
    counting: bytes
    callouts: bytes
    stencil_code: bytes
    stencils: bytes
    patches: bytes
    forms: bytes
    symbols: bytes

    def pack(self) -> bytes:
        """Return the file's bytes: the magic, the digest of what follows, and each section with its length."""
        body = b"".join(struct.pack("<I", len(part)) + part for part in self)
        return _HEADER.pack(MAGIC, digest(body), len(body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> "Image":
        """Return the image that :meth:`pack` wrote. Raises ImageDamaged if a single bit differs."""
        if len(data) < _HEADER.size:
            raise ImageDamaged("it is too short")
        magic, expected, length = _HEADER.unpack_from(data)
        body = memoryview(data)[_HEADER.size :]
        if magic != MAGIC or length != len(body) or digest(body) != expected:
            raise ImageDamaged("its checksum does not match")
        parts, at = [], 0
        for _ in cls._fields:
            (size,) = struct.unpack_from("<I", body, at)
            parts.append(bytes(body[at + 4 : at + 4 + size]))
            at += 4 + size
        return cls(*parts)

    def entry_points(self) -> dict[str, int]:
        """The offsets of the functions that Python calls, by name."""
        found: dict[str, int] = {}
        for line in self.symbols.split(b"\n", len(ENTRY_POINTS))[: len(ENTRY_POINTS)]:
            offset, name = line.decode().split(" ", 1)
            found[name] = int(offset)
        return found
