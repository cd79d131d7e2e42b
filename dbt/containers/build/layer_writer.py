"""Layers that are made without a guest: files are put above those of an image, into an archive."""

from __future__ import annotations

import posixpath
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Final, cast

from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.trees import Node
from dbt.containers.images import tar_reader as tar
from dbt.containers.images.disk import write_or_skip
from dbt.containers.images.errors import BadLayer, PathError
from dbt.containers.images.tar_reader import Entry, ImpliedFolders, Limits, TarReader
from dbt.containers.images.unpacking import unpacked
from dbt.containers.images.view import FilesView

_WHITEOUT: Final = ".wh."
_KINDS: Final = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip
_NANO: Final = 10**9


class _Pieces:
    """An iterator of bytes as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        end = len(self._held) if size < 0 else size
        found, self._held = self._held[:end], self._held[end:]
        return found


class _WithHoles:
    """A file that is written from its beginning to its end, with holes for zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def write(self, data: bytes) -> int:
        write_or_skip(self._file, data)
        return len(data)


class LayerWriter:
    """Writes an archive to ``file``. ``below`` are the files of the image that the layer is for, if it has any.

    Directories that are on the way to a file come as they are below, so that the layer does not change them.
    """

    def __init__(self, file: IO[bytes], below: FilesView | None, time: float) -> None:
        self._file = file
        holes = cast("IO[bytes]", _WithHoles(file))
        self._tar = tarfile.open(fileobj=holes, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8")  # noqa: SIM115
        self._below = below
        self._now = (int(time), int(time % 1 * _NANO))
        self._folders: set[str] = {""}
        self._implied = ImpliedFolders(Limits())
        self.is_empty = True

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()
        self._file.truncate(self._file.tell())

    def settled(self, path: str) -> str:
        """Return where a path leads, without a slash in front. What does not exist is as it is written."""
        parts = [part for part in posixpath.normpath("/" + path).split("/") if part]
        here = ""
        for number, part in enumerate(parts):
            try:
                assert self._below is not None
                here = self._below.resolve(f"{here}/{part}").rstrip("/")
            except (PathError, AssertionError):
                return "/".join([*here.split("/"), *parts[number:]]).strip("/")
        return here.strip("/")

    def is_folder(self, path: str) -> bool:
        """Return True if there is a directory at a settled path, below or in the layer."""
        if path in self._folders:
            return True
        try:
            return self._below is not None and stat.S_ISDIR(self._below.stat("/" + path).mode)
        except PathError:
            return False

    def make_folder(self, path: str, owner: tuple[int, int], mode: int = 0o755) -> None:
        """Have a directory at a settled path, and those above it. What is there is as it was."""
        missing: list[str] = []
        while path not in self._folders:
            missing.append(path)
            path = posixpath.dirname(path)
        for one in reversed(missing):
            self._implied.add(one)
            self._make_one(one, owner, mode)

    def _make_one(self, path: str, owner: tuple[int, int], mode: int) -> None:
        try:
            assert self._below is not None
            found = self._below.stat("/" + path)
            if stat.S_ISDIR(found.mode):
                self._write(path, Node(found.mode, found.uid, found.gid, 0, found.mtime), iter(()))
                return
        except (PathError, AssertionError):
            pass
        self.is_empty = False
        self._write(path, Node(stat.S_IFDIR | mode, *owner, 0, self._now), iter(()))

    def add(self, path: str, node: Node, content: Iterator[bytes], owner: tuple[int, int] = (0, 0)) -> None:
        """Add a file at a settled path. ``owner`` is that of directories that are made for it."""
        if posixpath.basename(path).startswith(_WHITEOUT):
            raise BuildFailed(f"{path}: in a layer, a name that begins with {_WHITEOUT} stands for a file that is gone")
        self.make_folder(posixpath.dirname(path), owner)
        self.is_empty = False
        self._write(path, node, content)

    def _write(self, path: str, node: Node, content: Iterator[bytes], link: str = "") -> None:
        entry = tarfile.TarInfo(path + ("/" if node.is_folder else ""))
        entry.type = tarfile.LNKTYPE if link else _KINDS[stat.S_IFMT(node.mode)]
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(node.mode), node.uid, node.gid
        entry.linkname = link or node.link
        entry.devmajor, entry.devminor = node.device
        entry.mtime = node.mtime[0]
        if node.mtime[1]:
            entry.pax_headers = {"mtime": f"{node.mtime[0]}.{node.mtime[1]:09}"}
        if node.is_folder:
            self._folders.add(path)
        if entry.isreg():
            entry.size = node.size
            self._tar.addfile(entry, _Pieces(content))
        else:
            self._tar.addfile(entry)
        self._tar.members.clear()  # type: ignore[attr-defined]  # nobody asks for them, and there may be many

    def unpack(self, archive: IO[bytes], path: str, owner: tuple[int, int]) -> bool:
        """Put what is in an archive at a settled path. Return False if it is none."""
        archive.seek(0)
        reader = TarReader(unpacked(archive), Limits())
        entries = reader.entries()
        try:
            first = next(entries, None)
        except (BadLayer, OSError):
            return False
        if first is None:
            return False
        self.make_folder(path, owner)
        try:
            self._unpack_one(first, reader, path, owner)
            for entry in entries:
                self._unpack_one(entry, reader, path, owner)
        except BadLayer as error:
            raise BuildFailed(f"ADD failed: {error}") from None
        return True

    def _unpack_one(self, entry: Entry, reader: TarReader, path: str, owner: tuple[int, int]) -> None:
        name = _inside(path, entry.name)
        if name == path:
            return
        mtime = entry.mtime
        if entry.kind == tar.HARD_LINK:
            self.make_folder(posixpath.dirname(name), owner)
            node = Node(stat.S_IFREG | entry.mode, entry.uid, entry.gid, 0, mtime)
            self._write(name, node, iter(()), link=_inside(path, entry.link))
            return
        if entry.pieces is not None:
            raise BadLayer(f"{name} is a sparse file, which an archive cannot have here")
        link = entry.link.decode("utf-8", "surrogateescape") if entry.kind == tar.SYMLINK else ""
        mode = _MODES[entry.kind] | entry.mode
        node = Node(mode, entry.uid, entry.gid, entry.size, mtime, link, entry.device)
        self.add(name, node, reader.content(), owner)


_MODES: Final = {
    tar.FILE: stat.S_IFREG, tar.SYMLINK: stat.S_IFLNK, tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.DIRECTORY: stat.S_IFDIR, tar.FIFO: stat.S_IFIFO,
}  # fmt: skip


def _inside(path: str, name: bytes) -> str:
    """Return a name of an archive below a path. Raise BadLayer for one that leads out of it."""
    parts = [part for part in name.decode("utf-8", "surrogateescape").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadLayer(f"the name {tar.shown(name)} leads out of the archive")
    return "/".join([path, *parts] if path else parts)
