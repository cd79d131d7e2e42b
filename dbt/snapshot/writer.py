"""Writing a snapshot file: a whole state, or what of it differs from another snapshot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from blake3 import blake3
from zstandard import ZstdCompressor

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.abi.version import VERSION
from dbt.devices.state import State
from dbt.memory.ram import RamLayout
from dbt.snapshot.errors import SnapshotNotWritten
from dbt.snapshot.format import (
    CHUNK_PAGES,
    DIGEST_SIZE,
    MAX_NAME,
    MAX_REGIONS,
    MAX_VALUES,
    Chunk,
    Header,
    Parent,
    Runs,
    packed_digest,
)
from dbt.snapshot.plain import encode
from dbt.snapshot.replacement import replacing

#: zstd's level for a whole state, and for an increment, which somebody waits for.
_LEVEL, _INCREMENT_LEVEL = 1, -1


class PageImage(Protocol):
    """The content of RAM, which does not change."""

    @property
    def layout(self) -> RamLayout: ...

    @property
    def pages(self) -> Sequence[int]:
        """The numbers of the pages that are not zero, in order."""

    def read(self, gpa: Gpa, size: int) -> bytes:
        """Return the bytes of RAM at ``gpa``, which are in one region."""


class Base(NamedTuple):
    """The parent of an increment: its digest, the name of its file, and what differs from it.

    ``changed`` are the pages with other content, in order, those that are zero now among them.
    """

    digest: bytes
    name: str
    changed: Sequence[int]


def write(path: str, values: State, image: PageImage, base: Base | None, durable: bool) -> bytes:
    """Write a state to the file ``path``, which is replaced in one step. Return the digest that names the snapshot.

    Raise SnapshotNotWritten if that is not possible; an existing file stays then.
    """
    encoded = _encode_values(path, values, image.layout)
    pages, cleared = _divide(image, base)
    parent = None if base is None else Parent(base.digest, _parent_name(path, base.name))
    compressor = ZstdCompressor(level=_LEVEL if base is None else _INCREMENT_LEVEL)
    stored = compressor.compress(encoded)
    blank = Chunk(0, bytes(DIGEST_SIZE))
    header = Header(
        VERSION,
        parent,
        image.layout,
        len(encoded),
        Chunk(len(stored), blake3(stored).digest()),
        Runs.of(pages),
        Runs.of(cleared),
        (blank,) * -(-len(pages) // CHUNK_PAGES),
    )
    try:
        with replacing(path, durable) as handle:
            # The size of preamble and header is known by now, the checksums are not.
            offset = len(header.pack())
            offset = _write_all(handle, stored, offset)
            chunks = []
            for segments in header.segments():
                content = b"".join(image.read(Gpa(page << PAGE_SHIFT), count << PAGE_SHIFT) for page, count in segments)
                stored = compressor.compress(content)
                chunks.append(Chunk(len(stored), blake3(stored).digest()))
                offset = _write_all(handle, stored, offset)
            packed = header._replace(chunks=tuple(chunks)).pack()
            _write_all(handle, packed, 0)
    except (OSError, ValueError) as error:
        raise SnapshotNotWritten.of(path, error) from None
    return packed_digest(packed)


def _encode_values(path: str, values: State, layout: RamLayout) -> bytes:
    """Return the encoding of the values. Raise SnapshotNotWritten for a state that no file can hold."""
    encoded = encode(values)
    if len(encoded) > MAX_VALUES:
        raise SnapshotNotWritten(
            f"{path}: the state has {len(encoded):,} bytes besides RAM, and a file up to {MAX_VALUES:,}"
        )
    if len(layout.regions) > MAX_REGIONS:
        raise SnapshotNotWritten(
            f"{path}: RAM has {len(layout.regions):,} regions, and a file can hold {MAX_REGIONS:,}"
        )
    return encoded


def _parent_name(path: str, name: str) -> bytes:
    encoded = os.fsencode(name)
    if not 0 < len(encoded) <= MAX_NAME:
        raise SnapshotNotWritten(f"{path}: the name of the parent, {name}, has more than {MAX_NAME} bytes")
    return encoded


def _divide(image: PageImage, base: Base | None) -> tuple[Sequence[int], Sequence[int]]:
    """Return the pages whose content is written, and those that are cleared."""
    if base is None:
        return image.pages, ()
    there = set(image.pages)
    return [page for page in base.changed if page in there], [page for page in base.changed if page not in there]


def _write_all(handle: int, data: bytes, offset: int) -> int:
    """Write all of the data. Return the offset behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
    return offset


def changed_pages(old: PageImage, new: PageImage) -> list[int]:
    """Return the numbers of the pages that differ, in order."""
    found: list[int] = []
    for start, count in Runs.of(sorted({*old.pages, *new.pages})).runs():
        for page in range(start, start + count, CHUNK_PAGES):
            size = min(CHUNK_PAGES, start + count - page) << PAGE_SHIFT
            one, other = (image.read(Gpa(page << PAGE_SHIFT), size) for image in (old, new))
            if one != other:
                found += (
                    page + (at >> PAGE_SHIFT)
                    for at in range(0, size, PAGE_SIZE)
                    if one[at : at + PAGE_SIZE] != other[at : at + PAGE_SIZE]
                )
    return found
