"""Tar archives, read once from their beginning to their end: entries leave, and the bytes between what is in files.

Anybody may have made the archive. What has no meaning raises BadLayer, and so does what exceeds :class:`Limits`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dbt.containers.images import tar_header as tar
from dbt.containers.images.errors import BadLayer
from dbt.containers.images.tar_header import BLOCK, Pieces
from dbt.containers.images.unpacking import ByteSource

PIECE: Final = 1 << 18
_ZEROS: Final = bytes(BLOCK)
#: Type flags. Of a file that is contiguous, nothing else is different.
FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_FILES: Final = (b"0", b"\0", b"7", b"S")
_LONG_NAME, _LONG_LINK, _PAX, _SUN_PAX, _GLOBAL, _GNU_SPARSE = b"L", b"K", b"x", b"X", b"g", b"S"


@dataclass(frozen=True)
class Limits:
    """What an archive may have at most.

    - ``bytes``: its own size, unpacked, and what is in its files together.
    - ``entries``: files, directories and so on.
    - ``folders``: directories that are in paths only.
    - ``header``: bytes of the extended headers and long names of one entry.
    - ``names``: bytes of all names, links and extended attributes, and a fourth of it of directories without entries.
    - ``steps``: components of all paths, with those of the links in their ways.
    - ``path``: bytes of one path, and ``component`` of a name in it, as Linux has them.
    """

    bytes: int = 32 << 30
    entries: int = 1 << 19
    folders: int = 1 << 16
    header: int = 1 << 20
    names: int = 128 << 20
    steps: int = 1 << 24
    path: int = 4095
    component: int = 255


class ImpliedFolders:
    """Counts directories that are in the paths of an archive and have no entry there: one path may have thousands."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._count, self._names = limits, 0, 0

    def add(self, name: bytes | str) -> None:
        """Count one that is kept under a name. Raise BadLayer if there are too many."""
        self._count += 1
        self._names += len(name)
        if self._count > self._limits.folders:
            raise BadLayer(f"the archive has more than {self._limits.folders} directories without an entry")
        if self._names > self._limits.names // 4:
            raise BadLayer(f"the paths of the archive's {self._count} directories without an entry are too long")


@dataclass(slots=True)
class Entry:
    """What an archive says of one file. ``size`` is the file's, ``stored`` that of its data in the archive, which are
    fewer if it is sparse (``pieces``). ``mtime`` is in seconds and nanoseconds since 1970.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    link: bytes
    device: tuple[int, int]
    size: int
    stored: int
    xattrs: list[tuple[bytes, bytes]]
    pieces: Pieces | None = None


@dataclass(slots=True)
class _Extended:
    """What stands before a header and overrides it, and how many bytes that has in the archive."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[int] = field(default_factory=list)
    size: int = 0


class TarReader:
    """Reads the unpacked archive from ``source``. ``between`` is given what is not read as a file's content."""

    def __init__(
        self, source: ByteSource, limits: Limits, between: Callable[[bytes], object] = lambda piece: None
    ) -> None:
        self._source, self._limits, self._between = source, limits, between
        self._buffer, self._at = b"", 0
        self._hash = hashlib.sha256()
        self._left = self._padding = self._names = 0
        self.bytes_read = 0

    @property
    def digest(self) -> str:
        """The SHA-256 of what has been read, which after the last entry is the whole archive."""
        return f"sha256:{self._hash.hexdigest()}"

    # -- bytes -------------------------------------------------------------------------------------

    def _some(self, most: int) -> bytes:
        """Return between 1 and ``most`` bytes, or none at the end."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(PIECE), 0
            self._hash.update(self._buffer)
            self.bytes_read += len(self._buffer)
            if self.bytes_read > self._limits.bytes:
                raise BadLayer(f"the archive has more than {self._limits.bytes} bytes when it is unpacked")
        piece = self._buffer[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _exactly(self, size: int) -> bytes:
        piece = self._some(size)
        while len(piece) < size:
            more = self._some(size - len(piece))
            if not more:
                raise BadLayer("the archive ends too early")
            piece += more
        return piece

    def _between_exactly(self, size: int) -> bytes:
        data = self._exactly(size)
        self._between(data)
        return data

    def _block(self) -> bytes | None:
        """Return the next block, or None if the archive ends before it."""
        first = self._some(BLOCK)
        if not first:
            return None
        block = first if len(first) == BLOCK else first + self._exactly(BLOCK - len(first))
        self._between(block)
        return block

    def content(self, most: int | None = None) -> Iterator[bytes]:
        """Yield what is in the archive of the entry that :meth:`entries` has yielded last, without padding: what is
        left of it, or ``most`` bytes of that.
        """
        end = 0 if most is None else max(self._left - most, 0)
        while self._left > end:
            piece = self._some(min(self._left - end, PIECE))
            if not piece:
                raise BadLayer("the archive ends too early")
            self._left -= len(piece)
            yield piece

    def _finish_entry(self) -> None:
        for piece in self.content():
            self._between(piece)
        if self._padding:
            self._between_exactly(self._padding)
            self._padding = 0

    # -- entries -----------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, and read to the end of the stream after the last."""
        number = 0
        while True:
            extended = _Extended()
            entry = self._next(extended)
            if entry is None:
                break
            number += 1
            if number > self._limits.entries:
                raise BadLayer(f"the archive has more than {self._limits.entries} entries")
            self._account(entry)
            yield entry
            self._finish_entry()
        while piece := self._some(PIECE):
            self._between(piece)

    def _account(self, entry: Entry) -> None:
        """See that what says where an entry belongs does not exceed the limits."""
        for path in (entry.name, entry.link) if entry.kind == HARD_LINK else (entry.name,):
            if len(path) > self._limits.path:
                raise BadLayer(f"the archive has a path of more than {self._limits.path} bytes: {shown(path)}")
        if entry.kind == SYMLINK and not 0 < len(entry.link) <= self._limits.path:
            raise BadLayer(f"the archive has a symbolic link with a target of no use: {shown(entry.name)}")
        self._names += len(entry.name) + len(entry.link)
        self._names += sum(len(name) + len(value) for name, value in entry.xattrs)
        if self._names > self._limits.names:
            raise BadLayer(f"the archive's names and attributes have more than {self._limits.names} bytes")

    def _next(self, extended: _Extended) -> Entry | None:
        while True:
            block = self._block()
            if block is None:
                return None
            if block == _ZEROS:
                second = self._block()
                if second not in (None, _ZEROS):
                    raise BadLayer("the archive goes on after a block of zeros")
                return None
            header = tar.read_header(block)
            match header.kind:
                case b"L" | b"K":
                    key = b"path" if header.kind == _LONG_NAME else b"linkpath"
                    extended.values[key] = self._special(header.size, extended).rstrip(b"\0")
                case b"x" | b"X":
                    _note(extended, self._special(header.size, extended))
                case b"g":
                    tar.pax_records(self._special(header.size, extended))  # docker ignores them, too
                case _:
                    return self._entry(header, block, extended)

    def _special(self, size: int, extended: _Extended) -> bytes:
        extended.size += BLOCK + size
        if extended.size > self._limits.header:
            raise BadLayer(f"the archive has extended headers of more than {self._limits.header} bytes for one entry")
        data = self._between_exactly(size)
        self._between_exactly(-size % BLOCK)
        return data

    def _entry(self, header: tar.Header, block: bytes, extended: _Extended) -> Entry:
        values = extended.values
        name, link = values.get(b"path", header.name), values.get(b"linkpath", header.link)
        name = values.get(b"GNU.sparse.name", name)
        if b"\0" in name or b"\0" in link:
            raise BadLayer("the archive has a name with a zero in it")
        size = tar.pax_number(values[b"size"]) if b"size" in values else header.size
        uid = tar.pax_number(values[b"uid"]) if b"uid" in values else header.uid
        gid = tar.pax_number(values[b"gid"]) if b"gid" in values else header.gid
        mtime = tar.pax_time(values[b"mtime"]) if b"mtime" in values else tar.bounded_time(header.mtime)
        kind = FILE if header.kind in _FILES else header.kind
        if kind not in (FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
            raise BadLayer(f"the archive has an entry of the unknown kind {header.kind!r}: {shown(name)}")
        pieces = None
        if kind == FILE:
            numbers = self._sparse_numbers(header, block, extended, size)
            if numbers is not None:
                self._left -= self._map_size
                pieces = tar.sparse(numbers[0], numbers[1], self._left)
            else:
                self._open(size)
            if name.endswith(b"/"):
                if self._left:
                    raise BadLayer(f"the archive has a directory with data: {shown(name)}")
                kind, pieces = DIRECTORY, None
        real = (pieces.size if pieces else self._left) if kind == FILE else 0
        return Entry(
            *(name, kind, header.mode & 0o7777, uid, gid, mtime, link, (header.major, header.minor)),
            *(real, self._left, list(extended.xattrs.items()), pieces),
        )

    def _open(self, size: int) -> None:
        self._left, self._padding, self._map_size = size, -size % BLOCK, 0

    def _sparse_numbers(
        self, header: tar.Header, block: bytes, extended: _Extended, size: int
    ) -> tuple[list[int], int] | None:
        """Return the offsets and sizes of a sparse file's pieces in turn and the file's size, or None for another."""
        values = extended.values
        if header.kind == _GNU_SPARSE:
            numbers, more, whole = tar.gnu_sparse(block)
            while more:
                next_numbers, more = tar.gnu_sparse_more(self._between_exactly(BLOCK))
                numbers += next_numbers
                if len(numbers) * 8 > self._limits.header:
                    raise BadLayer("the archive has a sparse file of too many pieces")
            self._open(size)
            return numbers, whole
        if b"GNU.sparse.major" in values:
            if (values[b"GNU.sparse.major"], values.get(b"GNU.sparse.minor")) != (b"1", b"0"):
                raise BadLayer("the archive has a sparse file of an unknown form")
            self._open(size)
            whole = tar.pax_number(values.get(b"GNU.sparse.realsize", b""))
            return self._map_in_front(size), whole
        if b"GNU.sparse.map" in values or extended.sparse:
            numbers = [tar.pax_number(one) for one in values.get(b"GNU.sparse.map", b"").split(b",") if one]
            self._open(size)
            return numbers or extended.sparse, tar.pax_number(values.get(b"GNU.sparse.size", b""))
        return None

    def _map_in_front(self, size: int) -> list[int]:
        """Return the numbers that stand in front of a file's data, one a line, the first of which counts the pairs."""
        blocks: list[bytes] = []
        ends, needed = 0, 1
        while ends < needed:
            if (len(blocks) + 1) * BLOCK > min(size, self._limits.header):
                raise BadLayer("the archive has a sparse file without a map")
            blocks.append(self._between_exactly(BLOCK))
            ends += blocks[-1].count(b"\n")
            if needed == 1 and ends:
                needed = 1 + 2 * tar.pax_number(b"".join(blocks).partition(b"\n")[0])
        self._map_size = len(blocks) * BLOCK
        return [tar.pax_number(line) for line in b"".join(blocks).split(b"\n")[1:needed]]


def _note(extended: _Extended, data: bytes) -> None:
    for key, value in tar.pax_records(data):
        name = tar.pax_xattr(key)
        if name is not None:
            extended.xattrs[name] = value
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            extended.sparse.append(tar.pax_number(value))
        elif value:
            extended.values[key] = value
        else:
            extended.values.pop(key, None)


def shown(name: bytes) -> str:
    """Return a name as an error's text may have it."""
    text = ascii(name.decode("utf-8", "surrogateescape"))[1:-1]
    return text if len(text) <= 200 else text[:200] + "..."
