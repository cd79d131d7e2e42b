"""The files of an image as a container sees them, for who has no guest: COPY --from, users and groups, programs.

Layers are put together as overlayfs does it. Links are followed within the image: none leads out of it, because
there is nothing else to lead to.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from dbt.containers.images.erofs_reader import ErofsReader, Inode
from dbt.containers.images.errors import PathError
from dbt.containers.images.image import Layer
from dbt.containers.images.layer_tree import OPAQUE, is_whiteout

_MOST_LINKS: Final = 40
_OVERLAYS: Final = b"trusted.overlay."


class FileStat(NamedTuple):
    """What is known of a file. ``mode`` has the kind, ``mtime`` is in seconds and nanoseconds since 1970, ``device``
    are major and minor number, ``link`` is the target of a symbolic link. Two names of one file have the same
    ``identity``.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime: tuple[int, int]
    device: tuple[int, int]
    link: str
    xattrs: dict[bytes, bytes]
    identity: tuple[int, int]


class _Place(NamedTuple):
    """A file: its inodes in layers, by their numbers, the highest first. A directory may have several."""

    inodes: tuple[tuple[int, Inode], ...]

    @property
    def top(self) -> Inode:
        return self.inodes[0][1]


class FilesView:
    """The files of ``layers``, the lowest first. A path is absolute or counts from the root.

    Every method raises PathError, with the text of Linux's error, if the path does not lead to what it needs, and
    StoreError if a layer is damaged.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._kept = tuple(layers)
        self._readers = [ErofsReader(layer.erofs) for layer in reversed(layers)]
        self._children: dict[tuple[int, int], dict[bytes, int]] = {}
        self._root = _Place(self._merged([(number, reader.root) for number, reader in enumerate(self._readers)]))

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> FilesView:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- what a user asks --------------------------------------------------------------------------

    def stat(self, path: str, follow: bool = True) -> FileStat:
        """Return what is known of a file. ``follow``: of what a link leads to, and not of the link."""
        return self._stat(self._find(path, follow))

    def exists(self, path: str) -> bool:
        """Return True if a path leads to something, whatever it is."""
        try:
            self._find(path, True)
        except PathError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return [_text(name) for name in sorted(self._names(self._folder(path)))]

    def readlink(self, path: str) -> str:
        place = self._find(path, False)
        if not stat.S_ISLNK(place.top.mode):
            raise PathError(f"{path}: Invalid argument")
        return _text(self._content(place))

    def resolve(self, path: str) -> str:
        """Return the absolute path of a file without links in it."""
        way = self._walk(path, True)
        return "/" + "/".join(_text(name) for name, _ in way[1:])

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield the content of a regular file."""
        place = self._regular(path)
        number, inode = place.inodes[0]
        return self._readers[number].content(inode)

    def read(self, path: str, most: int) -> bytes:
        """Return the content of a regular file of at most so many bytes. Raise PathError for a larger one."""
        place = self._regular(path)
        if place.top.size > most:
            raise PathError(f"{path}: File too large")
        return self._content(place)

    def walk(self, path: str) -> Iterator[tuple[str, FileStat]]:
        """Yield everything at and below a path, links not followed: paths and what is known of them, sorted within
        each directory, and a directory before what is in it.
        """
        start = self._find(path, False)
        todo = [("/" + "/".join(part for part in path.split("/") if part), start)]
        while todo:
            name, place = todo.pop()
            yield name, self._stat(place)
            if stat.S_ISDIR(place.top.mode):
                for child, inodes in sorted(self._names(place).items(), reverse=True):
                    todo.append((f"{name.rstrip('/')}/{_text(child)}", _Place(inodes)))

    # -- layers ------------------------------------------------------------------------------------

    def _stat(self, place: _Place) -> FileStat:
        number, inode = place.inodes[0]
        xattrs = self._readers[number].xattrs(inode)
        kept = {name: value for name, value in xattrs.items() if not name.startswith(_OVERLAYS)}
        link = _text(self._content(place)) if stat.S_ISLNK(inode.mode) else ""
        return FileStat(
            *(inode.mode, inode.uid, inode.gid, inode.size, inode.mtime, inode.device, link, kept),
            (number, inode.nid),
        )

    def _content(self, place: _Place) -> bytes:
        number, inode = place.inodes[0]
        return b"".join(self._readers[number].content(inode))

    def _merged(self, found: list[tuple[int, Inode]]) -> tuple[tuple[int, Inode], ...]:
        """Return what is seen of the inodes that have one name, the highest first: nothing, a file, or directories."""
        seen: list[tuple[int, Inode]] = []
        for number, inode in found:
            if not stat.S_ISDIR(inode.mode):
                if not seen and not is_whiteout(inode.mode, inode.device):
                    seen.append((number, inode))
                break
            seen.append((number, inode))
            if self._readers[number].xattrs(inode).get(OPAQUE[0]) == OPAQUE[1]:
                break
        return tuple(seen)

    def _in_layer(self, number: int, folder: Inode) -> dict[bytes, int]:
        key = (number, folder.nid)
        if key not in self._children:
            self._children[key] = self._readers[number].children(folder)
        return self._children[key]

    def _names(self, folder: _Place) -> dict[bytes, tuple[tuple[int, Inode], ...]]:
        found: dict[bytes, list[tuple[int, Inode]]] = {}
        for number, inode in folder.inodes:
            for name, nid in self._in_layer(number, inode).items():
                found.setdefault(name, []).append((number, self._readers[number].inode(nid)))
        return {name: merged for name, inodes in found.items() if (merged := self._merged(inodes))}

    def _child(self, folder: _Place, name: bytes) -> _Place | None:
        found = []
        for number, inode in folder.inodes:
            nid = self._in_layer(number, inode).get(name)
            if nid is not None:
                found.append((number, self._readers[number].inode(nid)))
        merged = self._merged(found)
        return _Place(merged) if merged else None

    # -- paths -------------------------------------------------------------------------------------

    def _walk(self, path: str, follow: bool) -> list[tuple[bytes, _Place]]:
        """Return the way from the root to a file: names and places."""
        way, links = [(b"", self._root)], 0
        todo = path.encode("utf-8", "surrogateescape").split(b"/")[::-1]
        while todo:
            name = todo.pop()
            if name in (b"", b".", b".."):
                if not stat.S_ISDIR(way[-1][1].top.mode):
                    raise PathError(f"{path}: Not a directory")
                if name == b".." and len(way) > 1:
                    way.pop()
                continue
            if not stat.S_ISDIR(way[-1][1].top.mode):
                raise PathError(f"{path}: Not a directory")
            place = self._child(way[-1][1], name)
            if place is None:
                raise PathError(f"{path}: No such file or directory")
            if stat.S_ISLNK(place.top.mode) and (follow or todo):
                links += 1
                if links > _MOST_LINKS:
                    raise PathError(f"{path}: Too many levels of symbolic links")
                target = self._content(place)
                if target.startswith(b"/"):
                    del way[1:]
                todo += target.split(b"/")[::-1]
            else:
                way.append((name, place))
        return way

    def _find(self, path: str, follow: bool) -> _Place:
        return self._walk(path, follow)[-1][1]

    def _folder(self, path: str) -> _Place:
        place = self._find(path, True)
        if not stat.S_ISDIR(place.top.mode):
            raise PathError(f"{path}: Not a directory")
        return place

    def _regular(self, path: str) -> _Place:
        place = self._find(path, True)
        if stat.S_ISDIR(place.top.mode):
            raise PathError(f"{path}: Is a directory")
        if not stat.S_ISREG(place.top.mode):
            raise PathError(f"{path}: Invalid argument")
        return place


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
