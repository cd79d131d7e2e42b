"""A snapshot file that is open to be read. Everything in it is hostile until it has been checked.

The file is read and never mapped: somebody could truncate a mapped file, which would end this process. What was read is
checked before it is used: first the digest over preamble and header, then, by the header, the checksum and the size of
each chunk. A chunk is decompressed only if its frame states the size that the header wants.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from blake3 import blake3
from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT
from dbt.devices.state import State
from dbt.snapshot.errors import SnapshotError, reason_of
from dbt.snapshot.format import (
    CHUNK_PAGES,
    PREAMBLE,
    Chunk,
    FormatError,
    Header,
    NewerFormat,
    NoSnapshot,
    Preamble,
    digest_of,
)
from dbt.snapshot.plain import NotPlain, decode

_DAMAGED = "It is damaged, or dbt did not write it: save the machine again, or copy the file again"
#: About so many bytes are read at a time.
_BATCH = 256 << 10


class SnapshotFile:
    """The file ``path``, whose preamble, header and size have been checked. SnapshotError says what is wrong."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._decompressor = ZstdDecompressor()
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{path}: the snapshot cannot be read: {reason_of(error)}") from None
        try:
            status = os.fstat(self._handle)
            if not stat.S_ISREG(status.st_mode):
                raise SnapshotError(f"{path}: this is not a regular file. Give one that `dbt run --save` has written")
            #: What tells the file from others: device and inode.
            self.identity = (status.st_dev, status.st_ino)
            self.size = status.st_size
            self.digest, self.header = self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def damaged(self, what: str) -> SnapshotError:
        """Return the error for content that is not possible."""
        return SnapshotError(f"{self.path}: the snapshot {what}. {_DAMAGED}")

    def _read_header(self) -> tuple[bytes, Header]:
        try:
            preamble = Preamble.unpack(self._read(0, min(PREAMBLE.size, self.size)))
            self._start = PREAMBLE.size + preamble.header_size
            if self._start > self.size:
                raise FormatError(f"has {self.size:,} bytes, and its header alone ends at {self._start:,}")
            data = self._read(PREAMBLE.size, preamble.header_size)
            if digest_of(preamble.signed, data) != preamble.digest:
                raise FormatError("has a header that its digest does not fit")
            header = Header.unpack(data)
        except NewerFormat as error:
            remedy = "Restore it with the version of dbt that wrote it"
            raise SnapshotError(f"{self.path}: the snapshot {error}. {remedy}") from None
        except NoSnapshot as error:
            remedy = "Give a file that `dbt run --save` has written"
            raise SnapshotError(f"{self.path}: this {error}. {remedy}") from None
        except FormatError as error:
            raise self.damaged(str(error)) from None
        if self.size != self._start + header.stored:
            raise self.damaged(f"has {self.size:,} bytes, and {self._start + header.stored:,} belong to it")
        return preamble.digest, header

    def _read(self, offset: int, size: int) -> bytes:
        pieces = []
        try:
            while size:
                piece = os.pread(self._handle, size, offset)
                if not piece:
                    raise self.damaged("has become shorter while it was read")
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        except OSError as error:
            raise SnapshotError(f"{self.path}: the snapshot cannot be read: {reason_of(error)}") from None
        return b"".join(pieces)

    # -- content -------------------------------------------------------------------------------

    def values(self) -> State:
        """Return the state but for RAM, as plain values that have not been checked. Raise SnapshotError."""
        chunk = self.header.values
        data = self._decompress(self._read(self._start, chunk.stored), chunk, self.header.values_size, "its values")
        try:
            values = decode(data)
        except NotPlain as error:
            raise self.damaged(f"has values that cannot be read: {error}") from None
        if type(values) is not dict or not all(type(name) is str for name in values):
            raise self.damaged("has values without names")
        return {str(name): value for name, value in values.items()}

    def pieces(self, wanted: bytes | None = None) -> Iterator[tuple[Gpa, bytes]]:
        """Yield the content of the file's pages in order: the GPA of the first, and the bytes of one or several pages.

        ``wanted`` has a byte for each of the file's pages, which is 0 for those that are left out. Raise SnapshotError.
        """
        segments = self.header.segments()
        for number, data in self._chunks(wanted):
            at = 0
            for page, count in segments[number]:
                first = number * CHUNK_PAGES + at
                if wanted is None or 0 not in wanted[first : first + count]:
                    yield Gpa(page << PAGE_SHIFT), data[at << PAGE_SHIFT : at + count << PAGE_SHIFT]
                else:
                    for one in range(at, at + count):
                        if wanted[first + one - at]:
                            yield Gpa(page + one - at << PAGE_SHIFT), data[one << PAGE_SHIFT : one + 1 << PAGE_SHIFT]
                at += count

    def check(self) -> None:
        """Read everything and check it. Raise SnapshotError."""
        self.values()
        for _ in self._chunks(None):
            pass

    def _chunks(self, wanted: bytes | None) -> Iterator[tuple[int, bytes]]:
        """Yield number and content of each chunk of RAM that has a page that is wanted."""
        offset = start = self._start + self.header.values.stored
        batch: list[int] = []
        for number, chunk in enumerate(self.header.chunks):
            needed = wanted is None or any(wanted[number * CHUNK_PAGES : (number + 1) * CHUNK_PAGES])
            if batch and (not needed or offset - start >= _BATCH):
                yield from self._read_batch(batch, start)
                batch = []
            if needed:
                start = start if batch else offset
                batch.append(number)
            offset += chunk.stored
        yield from self._read_batch(batch, start)

    def _read_batch(self, batch: list[int], offset: int) -> Iterator[tuple[int, bytes]]:
        chunks = self.header.chunks
        data = memoryview(self._read(offset, sum(chunks[number].stored for number in batch)))
        at = 0
        for number in batch:
            chunk = chunks[number]
            stored = data[at : at + chunk.stored]
            yield number, self._decompress(stored, chunk, self.header.chunk_size(number), f"chunk {number} of its RAM")
            at += chunk.stored

    def _decompress(self, stored: bytes | memoryview, chunk: Chunk, size: int, what: str) -> bytes:
        if blake3(stored).digest() != chunk.checksum:
            raise self.damaged(f"has other bytes in {what} than its header says")
        try:
            # By itself the library would take as much memory as the frame says.
            if get_frame_parameters(stored).content_size != size:
                raise self.damaged(f"has another size of {what} than its header says")
            data = self._decompressor.decompress(stored, max_output_size=size, allow_extra_data=False)
        except ZstdError as error:
            raise self.damaged(f"cannot be decompressed at {what} ({error})") from None
        return data
