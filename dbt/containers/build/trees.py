"""Files that can be copied into an image: those of a context, and those of another image."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator
from typing import IO, Final, NamedTuple, Protocol

from dbt.containers.build.failures import BuildFailed
from dbt.containers.images import tar_reader as tar
from dbt.containers.images.disk import write_or_skip
from dbt.containers.images.errors import BadLayer, PathError
from dbt.containers.images.tar_reader import Entry, ImpliedFolders, Limits, TarReader, shown
from dbt.containers.images.unpacking import unpacked
from dbt.containers.images.view import FileStat, FilesView

_MOST_LINKS: Final = 40
_PIECE: Final = 1 << 18
_TYPES: Final = {
    tar.FILE: stat.S_IFREG, tar.SYMLINK: stat.S_IFLNK, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.DIRECTORY: stat.S_IFDIR, tar.FIFO: stat.S_IFIFO,
}  # fmt: skip


class Node(NamedTuple):
    """A file. ``mode`` has the kind; ``mtime`` is in seconds and nanoseconds; ``place`` is where its content is."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: tuple[int, int]
    link: str = ""
    device: tuple[int, int] = (0, 0)
    place: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Tree(Protocol):
    """Files by their paths, which have no slash at their ends; the root is empty."""

    def find(self, path: str) -> tuple[str, Node]:
        """Return a file that a path leads to, links followed, and its own path. Raise PathError."""

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        """Yield what is at and below a path, links not followed: a directory before what is in it, sorted."""

    def content(self, path: str, node: Node) -> Iterator[bytes]:
        """Yield the content of a regular file."""


class ImageTree:
    """The files of an image."""

    def __init__(self, view: FilesView) -> None:
        self._view = view

    def find(self, path: str) -> tuple[str, Node]:
        return self._view.resolve(path).strip("/"), self._node(self._view.stat(path))

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        for found, status in self._view.walk("/" + path):
            yield found.strip("/"), self._node(status)

    def _node(self, status: FileStat) -> Node:
        return Node(status.mode, status.uid, status.gid, status.size, status.mtime, status.link, status.device)

    def content(self, path: str, node: Node) -> Iterator[bytes]:
        return self._view.pieces("/" + path)


class Context:
    """The files that a client has sent. ``archive`` is what it sent, compressed or not, and ``data`` an empty file for
    what is in them. Raise BuildFailed if it is no archive.
    """

    def __init__(self, archive: IO[bytes], data: IO[bytes], limits: Limits = Limits()) -> None:  # noqa: B008
        self._data = data
        self._implied = ImpliedFolders(limits)
        self._end = 0
        self._nodes: dict[str, Node] = {"": Node(stat.S_IFDIR | 0o755, 0, 0, 0, (0, 0))}
        self._children: dict[str, set[str]] = {"": set()}
        try:
            reader = TarReader(unpacked(archive), limits)
            for entry in reader.entries():
                self._take(entry, reader)
            data.truncate(self._end)
        except BadLayer as error:
            raise BuildFailed(f"Error processing tar file: {error}") from None

    def _take(self, entry: Entry, reader: TarReader) -> None:
        parts = [part for part in entry.name.decode("utf-8", "surrogateescape").split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BadLayer(f"the name {shown(entry.name)} leads out of the context")
        path = "/".join(parts)
        if entry.kind == tar.HARD_LINK:
            target = "/".join(part for part in entry.link.decode("utf-8", "surrogateescape").split("/") if part)
            linked = self._nodes.get(target.removeprefix("./"))
            if linked is None or linked.is_folder:
                raise BadLayer(f"{shown(entry.name)} is a link to nothing")
            self._put(path, linked)
            return
        place = self._end
        if entry.kind == tar.FILE:
            if entry.pieces is not None:
                raise BadLayer(f"{shown(entry.name)} is a sparse file, which a context cannot have")
            for piece in reader.content():
                write_or_skip(self._data, piece)
                self._end += len(piece)
        link = entry.link.decode("utf-8", "surrogateescape") if entry.kind == tar.SYMLINK else ""
        mode = _TYPES[entry.kind] | entry.mode
        self._put(path, Node(mode, entry.uid, entry.gid, entry.size, entry.mtime, link, entry.device, place))

    def _put(self, path: str, node: Node) -> None:
        """Have a file, in directories that are made if there are none."""
        if not path:
            return
        missing: list[str] = []
        above = posixpath.dirname(path)
        while above not in self._children:
            missing.append(above)
            above = posixpath.dirname(above)
        for one in reversed(missing):
            self._implied.add(one)
            self._put_one(one, Node(stat.S_IFDIR | 0o755, 0, 0, 0, (0, 0)))
        self._put_one(path, node)

    def _put_one(self, path: str, node: Node) -> None:
        above, _, name = path.rpartition("/")
        if path in self._children and not node.is_folder:
            self.remove(path)
        self._nodes[path] = node
        self._children[above].add(name)
        if node.is_folder:
            self._children.setdefault(path, set())

    def remove(self, path: str) -> None:
        """Have a file no longer, if there is one, and nothing below it."""
        for below in [found for found, _ in self.walk(path)] if path in self._nodes else []:
            del self._nodes[below]
            self._children.pop(below, None)
        above, _, name = path.rpartition("/")
        self._children.get(above, set()).discard(name)

    def find(self, path: str) -> tuple[str, Node]:
        way: list[str] = []
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del way[-1:]
                continue
            here = "/".join((*way, name))
            node = self._nodes.get(here)
            if node is None:
                raise PathError(f"{path}: No such file or directory")
            if stat.S_ISLNK(node.mode):
                links += 1
                if links > _MOST_LINKS:
                    raise PathError(f"{path}: Too many levels of symbolic links")
                way = [] if node.link.startswith("/") else way
                todo += node.link.split("/")[::-1]
            else:
                way.append(name)
        return "/".join(way), self._nodes["/".join(way)]

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        todo = [path]
        while todo:
            found = todo.pop()
            yield found, self._nodes[found]
            prefix = f"{found}/" if found else ""
            todo += [prefix + name for name in sorted(self._children.get(found, ()), reverse=True)]

    def content(self, path: str, node: Node) -> Iterator[bytes]:
        place, end = node.place, node.place + node.size
        while place < end:
            self._data.seek(place)
            piece = self._data.read(min(_PIECE, end - place))
            assert piece, "the file of the context has been cut"
            place += len(piece)
            yield piece

    def read(self, path: str, most: int) -> bytes | None:
        """Return the content of a file, or None if there is none or it has more than ``most`` bytes."""
        try:
            found, node = self.find(path)
        except PathError:
            return None
        return b"".join(self.content(found, node)) if node.is_file and node.size <= most else None


def pattern(text: str) -> re.Pattern[str]:
    """Return what a name with wildcards matches, whose ``*`` and ``?`` stand for no slash."""
    out, at = "", 0
    while at < len(text):
        one = text[at]
        at += 1
        if one == "*":
            out += "[^/]*"
        elif one == "?":
            out += "[^/]"
        elif one == "\\" and at < len(text):
            out += re.escape(text[at])
            at += 1
        elif one == "[" and (end := text.find("]", at + 1)) > 0:
            inside = text[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[{inside}]"
            at = end + 1
        else:
            out += re.escape(one)
    try:
        return re.compile(out, re.DOTALL)
    except re.error:
        raise BuildFailed(f"syntax error in pattern: {text}") from None
