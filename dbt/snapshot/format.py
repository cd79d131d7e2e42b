"""The format of a snapshot file: its preamble and header, as values that have been checked.

A file is a preamble of 48 bytes, a header, and chunks (docs/snapshots.md has every byte). The header is a plain value
(:mod:`dbt.snapshot.plain`). It says where the RAM is, of which pages the file has the content, and for each chunk its
size and checksum. The digest over preamble and header is therefore one over all of the file, and names the snapshot.

:func:`Header.unpack` is given bytes from anybody. All that it returns has been compared with everything else: sizes add
up, page numbers are sorted and RAM, and nothing needs more memory than the layout of the RAM says.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from blake3 import blake3

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT
from dbt.devices.state import Plain
from dbt.memory.ram import RamLayout, RamRegion
from dbt.snapshot.plain import NotPlain, decode, encode

MAGIC: Final = b"\x89dbtsnap"
FORMAT: Final = 1
#: Magic number, format, bytes of the header, digest.
PREAMBLE: Final = struct.Struct("<8sII32s")
_SIGNED: Final = 16
DIGEST_SIZE: Final = 32
#: A chunk of RAM has so many pages, the last one of a file up to so many.
CHUNK_PAGES: Final = 16
#: What one header, the values of one state, and a chunk as it is stored may have in bytes.
MAX_HEADER: Final = 16 << 20
MAX_VALUES: Final = 80 << 20
MAX_STORED_CHUNK: Final = (CHUNK_PAGES << PAGE_SHIFT) + 1024
MAX_REGIONS: Final = 1024
MAX_NAME: Final = 255
_MAX_HEADER_VALUES: Final = 8192
_CHUNK: Final = struct.Struct("<I32s")
_FIELDS: Final = frozenset(("chunks", "cleared", "dbt", "layout", "pages", "parent", "values"))


class FormatError(ValueError):
    """Raised for bytes that are not the beginning of a snapshot. The text says why, after "it"."""


class NoSnapshot(FormatError):
    """Raised for a file of another kind."""


class NewerFormat(FormatError):
    """Raised for the beginning of a snapshot whose format this version does not know."""


class Parent(NamedTuple):
    """The snapshot that an increment is based on: its digest, and the name of its file in the same directory."""

    digest: bytes
    name: bytes


class Chunk(NamedTuple):
    """A chunk as it is stored: its size in bytes and the BLAKE3 of these bytes."""

    stored: int
    checksum: bytes


class Runs:
    """Page numbers in order, as runs of consecutive ones: the first page of each run, and how many it has."""

    __slots__ = ("counts", "starts", "total")

    def __init__(self, starts: Sequence[int], counts: Sequence[int]) -> None:
        self.starts, self.counts = starts, counts
        #: The number of all pages.
        self.total = sum(counts)

    @classmethod
    def of(cls, pages: Iterable[int]) -> Runs:
        """Return the runs of page numbers that are sorted and unique."""
        starts, counts = array("I"), array("I")
        expected = -1
        for page in pages:
            if page == expected:
                counts[-1] += 1
            else:
                starts.append(page)
                counts.append(1)
            expected = page + 1
        return cls(starts, counts)

    def __iter__(self) -> Iterator[int]:
        """Yield each page number."""
        for start, count in self.runs():
            yield from range(start, start + count)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the first page and the number of pages of each run."""
        return zip(self.starts, self.counts, strict=True)

    def pack(self) -> bytes:
        """Return the runs as pairs of little-endian words."""
        return b"".join(_RUN.pack(start, count) for start, count in self.runs())

    @classmethod
    def unpack(cls, data: bytes, layout: RamLayout, what: str) -> Runs:
        """Return the runs in ``data``. Raise FormatError unless they are sorted, apart, and pages of RAM."""
        if len(data) % _RUN.size:
            raise FormatError(f"has a list of {what} that ends within a run")
        words = array("I", data)
        runs = cls(words[::2], words[1::2])
        # A run that touches the one before it would have to be a part of that.
        ends = [start + count for start, count in runs.runs()]
        if not all(runs.counts) or any(start <= end for end, start in zip(ends, runs.starts[1:], strict=False)):
            raise FormatError(f"has a list of {what} that is not sorted")
        areas = merged(layout)
        at = 0
        for start, end in zip(runs.starts, ends, strict=True):
            while at < len(areas) and areas[at][1] < end:
                at += 1
            if at == len(areas) or start < areas[at][0]:
                raise FormatError(f"has {what} {start:#x} to {end - 1:#x}, which are not all in its RAM")
        return runs


_RUN: Final = struct.Struct("<II")


def merged(layout: RamLayout) -> list[tuple[int, int]]:
    """Return first page and end of each part of RAM without a gap, in order."""
    areas: list[tuple[int, int]] = []
    for region in layout.regions:
        start, end = region.base >> PAGE_SHIFT, region.end >> PAGE_SHIFT
        if areas and areas[-1][1] == start:
            start = areas.pop()[0]
        areas.append((start, end))
    return areas


class Header(NamedTuple):
    """What a header says.

    - ``dbt``: the version that wrote the file, which is for people.
    - ``parent``: the snapshot that this one is an increment to, or None.
    - ``layout``: where the machine has RAM.
    - ``values_size``: the bytes of the other state's encoding, and ``values``: the chunk that has it.
    - ``pages``: the pages whose content the file has. An increment has those that differ from the parent's.
    - ``cleared``: the pages that are zero and are not in the parent. All pages that are in neither list are the
      parent's, or zero if there is no parent.
    - ``chunks``: the chunks that have the content of ``pages``, each 16 pages, compressed.
    """

    dbt: str
    parent: Parent | None
    layout: RamLayout
    values_size: int
    values: Chunk
    pages: Runs
    cleared: Runs
    chunks: tuple[Chunk, ...]

    @property
    def stored(self) -> int:
        """The bytes of all chunks as they are stored."""
        return self.values.stored + sum(chunk.stored for chunk in self.chunks)

    def chunk_size(self, number: int) -> int:
        """Return the bytes of RAM in a chunk."""
        return min(CHUNK_PAGES, self.pages.total - number * CHUNK_PAGES) << PAGE_SHIFT

    def segments(self) -> list[list[tuple[int, int]]]:
        """Return, for each chunk, the runs of pages that it has: the first page and their number."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.chunks]
        at = 0
        for start, count in self.pages.runs():
            page, left = start, count
            while left:
                here = min(left, CHUNK_PAGES - at % CHUNK_PAGES)
                found[at // CHUNK_PAGES].append((page, here))
                page, left, at = page + here, left - here, at + here
        return found

    def pack(self) -> bytes:
        """Return preamble and header."""
        parent = None if self.parent is None else [self.parent.digest, self.parent.name]
        header = encode(
            {
                "chunks": b"".join(_CHUNK.pack(*chunk) for chunk in self.chunks),
                "cleared": self.cleared.pack(),
                "dbt": self.dbt,
                "layout": [[int(region.base), region.size, region.read_only] for region in self.layout.regions],
                "pages": self.pages.pack(),
                "parent": parent,
                "values": [self.values_size, self.values.stored, self.values.checksum],
            }
        )
        signed = PREAMBLE.pack(MAGIC, FORMAT, len(header), b"")[:_SIGNED]
        return signed + digest_of(signed, header) + header

    @classmethod
    def unpack(cls, header: bytes) -> Header:
        """Return what the bytes of a header say. Raise FormatError unless all of it is possible."""
        try:
            fields = decode(header, _MAX_HEADER_VALUES)
        except NotPlain as error:
            raise FormatError(f"has a header that cannot be read: {error}") from None
        if type(fields) is not dict or fields.keys() != _FIELDS:
            raise FormatError("has a header with other fields than this format")
        return _Fields(fields).header()


def digest_of(signed: bytes, header: bytes) -> bytes:
    """Return the digest that names a snapshot: the BLAKE3 of the preamble's first 16 bytes and the header."""
    return blake3(signed + header).digest()


def packed_digest(packed: bytes) -> bytes:
    """Return the digest in the preamble of a packed header."""
    return packed[_SIGNED : PREAMBLE.size]


class Preamble(NamedTuple):
    """The preamble of a file: the bytes of its header, the digest that it states, and what the digest covers of it."""

    header_size: int
    digest: bytes
    signed: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Preamble:
        """Return the preamble. Raise FormatError if this is none, NewerFormat if it is one of another format."""
        if data[: len(MAGIC)] != MAGIC:
            raise NoSnapshot("is no snapshot of dbt")
        if len(data) < PREAMBLE.size:
            raise FormatError("ends within its first 48 bytes")
        _, version, size, digest = PREAMBLE.unpack(data)
        if version != FORMAT:
            raise NewerFormat(f"has the format {version}, and this dbt knows format {FORMAT}")
        if not 0 < size <= MAX_HEADER:
            raise FormatError(f"has a header of {size:,} bytes, and {MAX_HEADER:,} are possible")
        return cls(size, digest, data[:_SIGNED])


class _Fields:
    """The fields of a header, to be checked."""

    def __init__(self, fields: Mapping[Any, Plain]) -> None:
        self._fields = fields

    def header(self) -> Header:
        layout, parent = self._layout(), self._parent()
        version = self._fields["dbt"]
        if type(version) is not str or len(version) > MAX_NAME:
            raise FormatError("has a header whose field dbt is not a version")
        pages = Runs.unpack(self._bytes("pages"), layout, "pages")
        cleared = Runs.unpack(self._bytes("cleared"), layout, "cleared pages")
        if parent is None and cleared.total:
            raise FormatError("has cleared pages and no parent")
        if cleared.total and not set(pages).isdisjoint(cleared):
            raise FormatError("has a page that it clears, too")
        chunks = self._chunks(-(-pages.total // CHUNK_PAGES))
        size, values = self._values()
        return Header(version, parent, layout, size, values, pages, cleared, chunks)

    def _bytes(self, name: str) -> bytes:
        value = self._fields[name]
        if type(value) is not bytes:
            raise FormatError(f"has a header whose field {name} is not a list of bytes")
        return value

    def _layout(self) -> RamLayout:
        rows = self._fields["layout"]
        if type(rows) is not list or len(rows) > MAX_REGIONS:
            raise FormatError(f"has no list of up to {MAX_REGIONS} regions of RAM")
        regions = []
        for row in rows:
            match row:
                case [int(base), int(size), bool(read_only)] if type(base) is int and type(size) is int:
                    regions.append(RamRegion(Gpa(base), size, read_only))
                case _:
                    raise FormatError("has a region of RAM that is none")
        try:
            layout = RamLayout(tuple(regions))
        except ValueError as error:
            raise FormatError(f"has RAM that no guest can have: {error}") from None
        if layout.regions != tuple(regions):
            raise FormatError("has regions of RAM that are not sorted")
        return layout

    def _parent(self) -> Parent | None:
        match self._fields["parent"]:
            case None:
                return None
            case [bytes(digest), bytes(name)] if len(digest) == DIGEST_SIZE:
                if not 0 < len(name) <= MAX_NAME or b"/" in name or b"\0" in name or name in (b".", b".."):
                    raise FormatError("has a parent whose name is not that of a file in its directory")
                return Parent(digest, name)
            case _:
                raise FormatError("has a header whose field parent is not a digest and a name")

    def _values(self) -> tuple[int, Chunk]:
        match self._fields["values"]:
            case [int(size), int(stored), bytes(checksum)] if type(size) is int and type(stored) is int:
                if not 0 < size <= MAX_VALUES or not 0 < stored <= MAX_VALUES or len(checksum) != DIGEST_SIZE:
                    raise FormatError(f"has values of {size:,} bytes, and {MAX_VALUES:,} are possible")
                return size, Chunk(stored, checksum)
            case _:
                raise FormatError("has a header whose field values is not two sizes and a checksum")

    def _chunks(self, count: int) -> tuple[Chunk, ...]:
        data = self._bytes("chunks")
        if len(data) != count * _CHUNK.size:
            raise FormatError(f"has a table of other than the {count:,} chunks of its pages")
        chunks = tuple(map(Chunk._make, _CHUNK.iter_unpack(data)))
        if any(not 0 < chunk.stored <= MAX_STORED_CHUNK for chunk in chunks):
            raise FormatError("has a chunk whose size is not possible")
        return chunks
