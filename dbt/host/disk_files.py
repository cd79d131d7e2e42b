"""What a disk is on besides one image: several raw ones, one behind the other, or nothing."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import accumulate

from dbt.devices.medium import BLOCK
from dbt.host.disk import DiskError, RawFile
from dbt.memory.closing import Closing

_NOT_WRITABLE = "a disk of several files is only read"


class NoFile:
    """The file of an empty slot. See :class:`dbt.host.disk.DiskImage`."""

    path = ""
    size = 0

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        """Nothing is written, since there is no sector."""

    def flush(self) -> None:
        """Nothing was written."""

    def version(self) -> int:
        return 0

    def lock(self) -> None:
        """There is nothing to lock."""

    def unlock(self) -> None:
        """Nothing is locked."""

    def files(self) -> list[RawFile]:
        return []

    def close(self) -> None:
        """There is nothing to give back."""


class FileSequence(Closing):
    """Raw images at ``paths``, one behind the other, which are only read. See :class:`dbt.host.disk.DiskImage`."""

    def __init__(self, paths: Sequence[str], locked: bool = True) -> None:
        """Open them, and lock them if they are to be ``locked`` from now on. Raise DiskError."""
        self.path = paths[0]
        self._files: list[RawFile] = []
        try:
            for path in paths:
                self._files.append(RawFile(path, writable=False, locked=locked))
                if self._files[-1].size % BLOCK:
                    raise DiskError(f"the file {path} has {self._files[-1].size} bytes, and no whole blocks of {BLOCK}")
        except BaseException:
            self.close()
            raise
        self._starts = list(accumulate((file.size for file in self._files), initial=0))
        self.size = self._starts.pop()

    def read(self, offset: int, size: int) -> bytes:
        number = bisect_right(self._starts, offset) - 1
        pieces = []
        while size and number < len(self._files):
            file, start = self._files[number], self._starts[number]
            pieces.append(file.read(offset - start, min(size, start + file.size - offset)))
            offset, size, number = offset + len(pieces[-1]), size - len(pieces[-1]), number + 1
        return b"".join(pieces).ljust(size + sum(map(len, pieces)), b"\0")

    def write(self, offset: int, data: bytes) -> None:
        raise OSError(_NOT_WRITABLE)

    def flush(self) -> None:
        """Nothing is written."""

    def version(self) -> int:
        """See :class:`dbt.host.disk.DiskImage`: a number that follows from those of all files."""
        versions = struct.pack(f"<{len(self._files)}q", *(file.version() for file in self._files))
        return int.from_bytes(blake2b(versions, digest_size=8).digest(), "little") >> 1

    def lock(self) -> None:
        """See :class:`dbt.host.disk.DiskImage`."""
        with ExitStack() as locked:
            for file in self._files:
                file.lock()
                locked.callback(file.unlock)
            locked.pop_all()

    def unlock(self) -> None:
        for file in self._files:
            file.unlock()

    def files(self) -> list[RawFile]:
        return list(self._files)

    @property
    def is_closed(self) -> bool:
        return not self._files

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""
        for file in self._files:
            file.close()
        self._files = []
