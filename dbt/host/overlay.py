"""A file with the blocks of a disk that have changed, beside the image that they are changes of.

The file has a header of one block, a table with the place of each block of the disk, and the blocks that have changed,
each of :data:`dbt.devices.medium.BLOCK` bytes. A place is the number of a stored block, counted from 1, in four
bytes, the lowest first; 0 is that of a block that has not changed. Data gets to the host's disk before a place says
where it is. So a file that was left in the middle has everything up to the last flush.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Final

from dbt.devices.medium import BLOCK
from dbt.host.disk import DiskError, DiskImage, RawFile
from dbt.memory.closing import Closing

_MAGIC: Final = b"dbt overlay 1\n\0\0"
#: The magic text, the size of the disk in bytes, and when the image was written, in nanoseconds since 1970.
_HEADER: Final = struct.Struct("<16sQQ")
_NAME_ONE: Final = "give the name of one, or of a file that does not exist"
_PLACE: Final = struct.Struct("<I")
#: The largest disk. Its table has 16 GiB, of which only what is used takes room.
_MOST_SIZE: Final = 1 << 44
#: The table is read in pieces of so many bytes.
_PIECE: Final = 1 << 20


class OverlayFile(Closing):
    """The overlay in the file ``path`` of the image ``base``. It is made if it does not exist. Raises DiskError."""

    def __init__(self, path: str, base: DiskImage) -> None:
        self._blocks = -(-base.size // BLOCK)
        self._data = BLOCK + -(-self._blocks * _PLACE.size // BLOCK) * BLOCK
        header = _HEADER.pack(_MAGIC, base.size, base.version())
        if base.size > _MOST_SIZE:
            raise DiskError(f"the disk {base.path} is too large for an overlay: it has {base.size} bytes")
        try:
            with open(path, "xb") as made:
                made.write(header)
                made.truncate(self._data)
        except FileExistsError:
            pass
        except OSError as error:
            raise DiskError(f"cannot make the overlay {path}: {error.strerror}") from None
        if os.path.isfile(path) and not os.path.getsize(path):
            raise DiskError(f"{path} is no overlay, but an empty file: {_NAME_ONE}")
        self._file = RawFile(path, writable=True)
        try:
            self._check(header, base)
            self._places = self._read_places()
        except BaseException:
            self.close()
            raise
        self._stored: dict[int, bytes] = {}

    def _check(self, wanted: bytes, base: DiskImage) -> None:
        magic, size, version = _HEADER.unpack(self._file.read(0, _HEADER.size))
        path = self._file.path
        if magic != _MAGIC:
            raise DiskError(f"{path} is no overlay: {_NAME_ONE}")
        if size != base.size or version != base.version():
            raise DiskError(
                f"the disk {base.path} is not the one that {path} is an overlay of, or has been written since. "
                "Put the disk back as it was, or begin with a new overlay"
            )

    def _read_places(self) -> dict[int, int]:
        """Return the place of each block that has changed. Raise DiskError for places that cannot be."""
        places: dict[int, int] = {}
        for start, stop in self._file.data(BLOCK, BLOCK + self._blocks * _PLACE.size):
            for at in range(start & -_PLACE.size, stop, _PIECE):
                table = self._file.read(at, min(_PIECE, -(-stop // _PLACE.size) * _PLACE.size - at))
                if table.count(0) != len(table):
                    first = (at - BLOCK) // _PLACE.size
                    places.update(
                        (block, place) for block, (place,) in enumerate(_PLACE.iter_unpack(table), first) if place
                    )
        end = (self._file.size - self._data) // BLOCK
        if len(set(places.values())) != len(places) or any(place > end for place in places.values()):
            raise DiskError(f"the overlay {self._file.path} is damaged: two blocks have one place, or one has none")
        return places

    def load(self) -> dict[int, bytes]:
        """Return the blocks that have changed, by number."""
        self._stored = {block: self._read(place) for block, place in self._places.items()}
        return self._stored.copy()

    def _read(self, place: int) -> bytes:
        return self._file.read(self._data + (place - 1) * BLOCK, BLOCK)

    def store(self, changed: Mapping[int, bytes]) -> None:
        """Return when the file has exactly these blocks, whatever happens to the host. Raise OSError if it cannot."""
        news = [block for block, data in changed.items() if self._stored.get(block) is not data]
        gone = [block for block in self._places if block not in changed]
        if not news and not gone:
            return
        following = max(self._places.values(), default=0) + 1
        placed: dict[int, int] = {}
        for block in news:
            place = self._places.get(block, 0)
            if not place:
                place, following = following, following + 1
                placed[block] = place
            self._file.write(self._data + (place - 1) * BLOCK, changed[block])
        self._file.flush()
        for block, place in (*placed.items(), *((block, 0) for block in gone)):
            self._file.write(BLOCK + block * _PLACE.size, _PLACE.pack(place))
        self._file.flush()
        for block in gone:
            del self._places[block]
        self._places.update(placed)
        self._stored = dict(changed)

    def lock(self) -> None:
        """Take the lock of the file again. Raise DiskError."""
        self._file.lock()

    def unlock(self) -> None:
        """Give the lock back and keep the file open."""
        self._file.unlock()

    def files(self) -> list[RawFile]:
        """Return the one file that it is in."""
        return [self._file]

    def close(self) -> None:
        """Give the file and its lock back."""
        self._file.close()
