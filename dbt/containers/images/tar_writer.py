"""Archives that are written as streams."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import Final

from dbt.containers.images.tar_header import BLOCK

#: A tar archive has a multiple of this size.
_RECORD: Final = 20 * BLOCK


class TarWriter:
    """An archive as far as it has been written: no file is there twice. What a method returns or yields comes next."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._size = 0

    def header(self, path: str, size: int) -> bytes:
        """Return the header of a file of ``size`` bytes, or of a directory, whose path ends with a slash."""
        info = tarfile.TarInfo(path.rstrip("/"))
        info.size, info.mode = size, 0o644
        if path.endswith("/"):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        data = info.tobuf(tarfile.GNU_FORMAT)
        self._size += len(data) + size + -size % BLOCK
        return data

    def file(self, path: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield a file, whose content has ``size`` bytes."""
        if path in self._paths:
            return
        self._paths.add(path)
        yield self.header(path, size)
        yield from pieces
        yield bytes(-size % BLOCK)

    def document(self, path: str, document: bytes) -> Iterator[bytes]:
        """Return the pieces of a file with this content."""
        return self.file(path, len(document), (document,))

    def end(self) -> bytes:
        """Return the end of the archive."""
        return bytes(2 * BLOCK + -(self._size + 2 * BLOCK) % _RECORD)
