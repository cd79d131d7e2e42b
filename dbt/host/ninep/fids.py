"""Fids: the numbers by which a client names files, each a path beneath the share's root, open or not.

A fid is plain bytes in the state of the device, so it is saved and restored with the machine. What a request changes is
noted beside the table, so that its outcome can be recorded.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dbt.devices.virtio.ninep import MOST_FIDS
from dbt.host.ninep.messages import failure

#: The names of directories from the root on, and the last one of anything. The root has none.
Path = tuple[bytes, ...]
#: Bytes of a path, with a slash between two names.
_LONGEST_PATH: Final = 4096
_NONE = 0xFFFFFFFF
_HEAD = struct.Struct("<QI")


class Fid(NamedTuple):
    """A file that the client names. ``serial`` is the number of the request that opened it, or 0 if it is not open;
    ``flags`` are those of open(2).
    """

    path: Path
    serial: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        return _HEAD.pack(self.serial, self.flags) + b"/".join(self.path)

    @classmethod
    def unpack(cls, data: bytes) -> Fid:
        """Return the fid that :meth:`pack` has made bytes of. Raise ValueError for others."""
        if not _HEAD.size <= len(data) <= _HEAD.size + _LONGEST_PATH:
            raise ValueError(f"no fid has {len(data)} bytes")
        serial, flags = _HEAD.unpack_from(data)
        rest = data[_HEAD.size :]
        path = tuple(rest.split(b"/")) if rest else ()
        if not all(map(is_name, path)):
            raise ValueError(f"{rest!r:.100} is no path beneath a directory")
        return cls(path, serial, flags)


def is_name(name: bytes) -> bool:
    """Return True if this names an entry of a directory, which leads nowhere else."""
    return bool(name) and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def is_too_long(path: Path) -> bool:
    """Return True for a path that no fid can have."""
    return sum(map(len, path)) + len(path) - 1 > _LONGEST_PATH


class FidTable:
    """The fids of a client. ``changes`` are those that are new or have changed, or None for those that are gone."""

    def __init__(self, packed: Mapping[int, bytes]) -> None:
        self._packed = packed
        self._added = 0
        self.changes: dict[int, bytes | None] = {}

    def _find(self, number: int) -> bytes | None:
        return self.changes[number] if number in self.changes else self._packed.get(number)

    def get(self, number: int, missing: int = errno.ENOENT) -> Fid:
        """Return a fid. Raise OSError with the error number ``missing`` if there is none."""
        packed = self._find(number)
        if packed is None:
            raise failure(missing)
        return Fid.unpack(packed)

    def add(self, number: int, fid: Fid) -> None:
        """Add a fid. Raise OSError if the number is taken, or if there are too many."""
        if number == _NONE or self._find(number) is not None:
            raise failure(errno.EINVAL)
        if len(self._packed) + self._added >= MOST_FIDS:
            raise failure(errno.ENFILE)
        self.put(number, fid)
        self._added += 1

    def put(self, number: int, fid: Fid) -> None:
        """Change a fid."""
        if is_too_long(fid.path):
            raise failure(errno.ENAMETOOLONG)
        self.changes[number] = fid.pack()

    def remove(self, number: int) -> None:
        self.changes[number] = None

    def clear(self) -> None:
        """Remove all of them."""
        self.changes = dict.fromkeys(self._packed)

    def move(self, old: Path, new: Path) -> None:
        """Change the paths of what was at ``old`` and beneath it, which has been renamed to ``new``.

        A path that becomes too long names nothing any more: its fid keeps the old path.
        """
        size = len(old)
        for number, fid in list(self.items()):
            if fid.path[:size] == old:
                moved = fid._replace(path=new + fid.path[size:])
                if not is_too_long(moved.path):
                    self.changes[number] = moved.pack()

    def items(self) -> Iterator[tuple[int, Fid]]:
        """Yield each fid with its number."""
        for number in self._packed.keys() | self.changes.keys():
            packed = self._find(number)
            if packed is not None:
                yield number, Fid.unpack(packed)

    def serials(self) -> set[int]:
        """Return the serials of all open fids."""
        return {fid.serial for _, fid in self.items() if fid.serial}
