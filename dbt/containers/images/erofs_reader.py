"""EROFS images that the writer has made, read: directories, attributes and content.

The store has written the image itself. Nevertheless every number is checked against the size of the image, because
a disk may lose what was written: DamagedImage is raised, and nothing outside of the image is read.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from dbt.containers.images.erofs_format import (
    BLOCK,
    ENTRY,
    INLINE,
    INODE,
    LONG_FORM,
    MAGIC,
    PLAIN,
    PREFIXES,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_AT,
    XATTR,
    XATTR_HEADER,
    decode_device,
)
from dbt.containers.images.errors import StoreError

_PIECE = 1 << 20
_PREFIX_OF = {index: prefix for prefix, index in PREFIXES}


class Inode(NamedTuple):
    """A file in an image. ``mtime`` is in seconds and nanoseconds. ``attributes_at`` and ``tail_at`` are offsets."""

    nid: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: tuple[int, int]
    links: int
    device: tuple[int, int]
    layout: int
    block: int
    attributes_at: int
    tail_at: int


class ErofsReader:
    """An image that is mapped into memory as long as this object lives. Raise StoreError if it is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._data = mmap.mmap(handle, 0, prot=mmap.PROT_READ)
            finally:
                os.close(handle)
            fields = SUPERBLOCK.unpack_from(self._data, SUPERBLOCK_AT)
        except (OSError, ValueError, struct.error) as error:
            raise StoreError(f"the layer {path} cannot be read: {error}") from None
        if fields[0] != MAGIC:
            raise self._damaged()
        self._inodes_at = fields[10] * BLOCK
        self.root = self.inode(fields[5])

    def _damaged(self) -> StoreError:
        return StoreError(f"the layer {self._path} is damaged")

    def _bytes(self, at: int, size: int) -> bytes:
        if at + size > len(self._data):
            raise self._damaged()
        return self._data[at : at + size]

    def inode(self, nid: int) -> Inode:
        at = self._inodes_at + nid * SLOT
        form, attributes, mode, _, size, place, _, uid, gid, seconds, nanoseconds, links = INODE.unpack(
            self._bytes(at, INODE.size)
        )
        if form & 1 != LONG_FORM or form >> 1 not in (PLAIN, INLINE):
            raise self._damaged()
        after = at + INODE.size
        tail = after + (XATTR_HEADER + 4 * (attributes - 1) if attributes else 0)
        device = decode_device(place) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else (0, 0)
        return Inode(
            *(nid, mode, uid, gid, size, (seconds, nanoseconds), links, device),
            *(form >> 1, place, after, tail),
        )

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        found, at = {}, inode.attributes_at + XATTR_HEADER
        while at + XATTR.size <= inode.tail_at:
            length, index, size = XATTR.unpack(self._bytes(at, XATTR.size))
            at += XATTR.size
            if index not in _PREFIX_OF:
                raise self._damaged()
            found[_PREFIX_OF[index] + self._bytes(at, length)] = self._bytes(at + length, size)
            at += length + size
            at += -(at - inode.attributes_at) % 4
        return found

    def content(self, inode: Inode) -> Iterator[bytes]:
        """Yield what is in a regular file, in a link, or the blocks of a directory."""
        tail = inode.size % BLOCK if inode.layout == INLINE else 0
        at, end = inode.block * BLOCK, inode.block * BLOCK + inode.size - tail
        while at < end:
            piece = self._bytes(at, min(end - at, _PIECE))
            at += len(piece)
            yield piece
        if tail:
            yield self._bytes(inode.tail_at, tail)

    def children(self, inode: Inode) -> dict[bytes, int]:
        """Return the nid of each name in a directory."""
        data = b"".join(self.content(inode))
        found: dict[bytes, int] = {}
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            if len(block) < ENTRY.size:
                raise self._damaged()
            entries = list(ENTRY.iter_unpack(block[: ENTRY.unpack_from(block)[1] // ENTRY.size * ENTRY.size]))
            ends = [offset for _, offset, _ in entries[1:]] + [len(block)]
            for (nid, offset, _), end in zip(entries, ends, strict=True):
                found[block[offset:end].rstrip(b"\0")] = nid
        found.pop(b".", None)
        found.pop(b"..", None)
        return found

    def close(self) -> None:
        self._data.close()
