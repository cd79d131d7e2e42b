"""The images of RAM that this process has of snapshots, so that a file is read and decompressed once.

A command that restores a machine begins to read before it imports what else it needs: :func:`begin_reading` has a
forked process fill the file in memory that becomes the image. A thread would wait for the interpreter most of the time
(docs/decisions/snapshot-files.md).
"""

from __future__ import annotations

import os
from weakref import WeakValueDictionary

from dbt.memory.ram import RamFile
from dbt.memory.ram_image import RamImage
from dbt.snapshot.chain import SnapshotChain
from dbt.snapshot.errors import SnapshotError

#: The images by the digests of their snapshots, as long as anybody has them.
_IMAGES: WeakValueDictionary[bytes, RamImage] = WeakValueDictionary()
#: What has been begun and not finished: at most one.
_readers: list[_Reader] = []


def known_image(digest: bytes) -> RamImage | None:
    """Return an image of a snapshot's RAM that is open, or None if this process has none."""
    image = _IMAGES.get(digest)
    return None if image is None or image.is_closed else image


def remember(digest: bytes, image: RamImage) -> None:
    """Note that an image is that of a snapshot."""
    _IMAGES[digest] = image


def begin_reading(path: str) -> None:
    """Begin to read a snapshot, which :func:`finish_reading` waits for. There must be no other threads."""
    finish_reading()
    _readers.append(_Reader(path))


def finish_reading() -> RamImage | None:
    """Wait until a snapshot that was begun is read. Return its image, which is known as long as the caller has it."""
    return _readers.pop().finish() if _readers else None


class _Reader:
    """A process that reads a snapshot. Whatever goes wrong, whoever needs the file reads it again and reports it."""

    def __init__(self, path: str) -> None:
        self._child = 0
        try:
            with SnapshotChain(path) as chain:
                self._layout, self._digest = chain.layout, chain.digest
                self._file = RamFile(chain.layout.end)
                self._child = os.fork()
                if not self._child:
                    _fill_and_exit(self._file, chain)
                self._file.parts = chain.parts()
        except (SnapshotError, OSError):
            return

    def finish(self) -> RamImage | None:
        """Return the image when it is complete, or None if there is none."""
        if not self._child or os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1]):
            return None
        image = RamImage.adopt(self._layout, self._file)
        remember(self._digest, image)
        return image


def _fill_and_exit(file: RamFile, chain: SnapshotChain) -> None:
    """Write what a snapshot has to a file in memory, and end the process, with status 0 if all is well."""
    status = 1
    try:
        for gpa, data in chain.pieces():
            file.write(gpa, data)
        status = 0
    finally:
        os._exit(status)
