"""The files of a layer as a tree, made of the entries of its archive, with what the archive hides below it.

Names are resolved within the layer: a name that leads out of it is refused, and a symbolic link in the way leads to
something in the layer or nowhere.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from dbt.containers.images import tar_reader as tar
from dbt.containers.images.errors import BadLayer
from dbt.containers.images.tar_reader import Entry, ImpliedFolders, Limits, shown

OPAQUE: Final = (b"trusted.overlay.opaque", b"y")
#: How AUFS, and so every layer's archive, marks what is no longer there.
_WHITEOUT, _OPAQUE_NAME, _WHITEOUT_META = b".wh.", b".wh..wh..opq", b".wh..wh."
#: Attributes with which a layer could tell overlayfs what is for us to say.
_OVERLAYS: Final = (b"trusted.overlay.", b"user.overlay.")
_KINDS: Final = {
    tar.FILE: stat.S_IFREG,
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.DIRECTORY: stat.S_IFDIR,
    tar.FIFO: stat.S_IFIFO,
}
_MOST_LINKS: Final = 40
_MOST_ID: Final = (1 << 32) - 2
_MOST_MAJOR, _MOST_MINOR = (1 << 12) - 1, (1 << 20) - 1
_MOST_XATTR_NAME, _MOST_XATTR_VALUE = 255, 65535
#: What one inode may have of attributes, in bytes: Linux gives a list of them no more room.
_MOST_XATTRS: Final = 65536


class Node:
    """A file of any kind. ``mode`` has the kind. ``children`` is for directories.

    ``content`` is the target of a link, the data of a small file, or None: then the data are in the image, from block
    ``block`` on. ``nid`` and ``links`` are for who writes the image.
    """

    __slots__ = (
        *("block", "children", "content", "device", "gid", "inode", "links", "mode", "mtime", "nid", "size", "uid"),
        "xattrs",
    )

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime: tuple[int, int] = (0, 0)) -> None:
        self.mode, self.uid, self.gid, self.mtime = mode, uid, gid, mtime
        self.size = self.block = self.nid = self.links = self.inode = 0
        self.device = (0, 0)
        self.content: bytes | None = None
        self.xattrs: list[tuple[bytes, bytes]] = []
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None


def is_whiteout(mode: int, device: tuple[int, int]) -> bool:
    """Return True for what overlayfs takes for the mark of something that is no longer there."""
    return stat.S_ISCHR(mode) and device == (0, 0)


class LayerTree:
    """The tree, which :meth:`add` makes. ``root`` has an empty name."""

    def __init__(self, limits: Limits) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self._limits, self._steps, self._implied = limits, 0, ImpliedFolders(limits)
        self._opaque: list[Node] = []
        self._hidden: list[tuple[Node, bytes]] = []

    def add(self, entry: Entry) -> Node | None:
        """Add an entry, and return its node if it is a file whose content comes now. Raise BadLayer."""
        parts = self._parts(entry.name)
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise BadLayer(f"the archive has a root that is no directory: {shown(entry.name)}")
            _describe(self.root, entry)
            return None
        folder = self._folder(parts[:-1], entry)
        assert folder.children is not None
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._hide(folder, name, entry)
            return None
        if entry.kind == tar.HARD_LINK:
            folder.children[name] = self._target(entry, folder, name)
            return None
        old = folder.children.get(name)
        if old is not None and old.children is not None and entry.kind == tar.DIRECTORY:
            _describe(old, entry)
            return None
        node = Node(_KINDS[entry.kind])
        _describe(node, entry)
        folder.children[name] = node
        return node if entry.kind == tar.FILE else None

    def _parts(self, path: bytes) -> list[bytes]:
        """Return the components of a path, which is taken from the root of the layer."""
        found: list[bytes] = []
        for part in path.split(b"/"):
            if part == b"..":
                if not found:
                    raise BadLayer(f"the archive has a path that leads out of it: {shown(path)}")
                found.pop()
            elif part not in (b"", b"."):
                if len(part) > self._limits.component:
                    raise BadLayer(f"the archive has a name of more than {self._limits.component} bytes: {shown(path)}")
                found.append(part)
        return found

    def _folder(self, parts: list[bytes], entry: Entry) -> Node:
        """Return the directory at a path, which is made if it is not there."""
        way, todo, links = [self.root], parts[::-1], 0
        while todo:
            self._steps += 1
            if self._steps > self._limits.steps:
                raise BadLayer(f"the archive's paths have more than {self._limits.steps} components together")
            part = todo.pop()
            if part in (b"", b".", b".."):  # these come from links only
                if part == b".." and len(way) > 1:
                    way.pop()
                continue
            children = way[-1].children
            assert children is not None
            node = children.get(part)
            if node is None:
                self._implied.add(part)
                node = children[part] = Node(stat.S_IFDIR | 0o755, mtime=entry.mtime)
            if stat.S_ISLNK(node.mode):
                links += 1
                target = node.content
                if links > _MOST_LINKS or target is None:
                    raise BadLayer(f"the archive has a path with too many links: {shown(entry.name)}")
                if target.startswith(b"/"):
                    del way[1:]
                todo += target.split(b"/")[::-1]
            elif node.children is None:
                raise BadLayer(f"the archive has a path below what is no directory: {shown(entry.name)}")
            else:
                way.append(node)
        return way[-1]

    def _target(self, entry: Entry, folder: Node, name: bytes) -> Node:
        """Return what a hard link is another name of."""
        parts = self._parts(entry.link)
        missing = BadLayer(f"the archive has a link to what is not there: {shown(entry.name)} to {shown(entry.link)}")
        if not parts:
            raise missing
        node = self._existing(parts[:-1], entry)
        found = node.children.get(parts[-1]) if node and node.children else None
        if found is None:
            raise missing
        if found.children is not None:
            raise BadLayer(f"the archive has a hard link to a directory: {shown(entry.name)}")
        return found

    def _existing(self, parts: list[bytes], entry: Entry) -> Node | None:
        """Return the directory at a path without links, or None."""
        node: Node | None = self.root
        for part in parts:
            node = node.children.get(part) if node and node.children else None
        return node

    # -- what the archive hides --------------------------------------------------------------------

    def _hide(self, folder: Node, name: bytes, entry: Entry) -> None:
        if name == _OPAQUE_NAME:
            self._opaque.append(folder)
        elif not name.startswith(_WHITEOUT_META):  # what else AUFS has noted is of no use
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise BadLayer(f"the archive has a whiteout of nothing: {shown(entry.name)}")
            self._hidden.append((folder, hidden))

    def finish(self) -> Node:
        """Return the root, when all entries have been added."""
        for folder, name in self._hidden:
            assert folder.children is not None
            there = folder.children.get(name)
            if there is None:
                folder.children[name] = Node(stat.S_IFCHR)
            elif there.children is not None:
                self._opaque.append(there)
        for folder in self._opaque:
            # The root of a layer cannot hide anything: overlayfs does not look, and so docker has it, too.
            if folder is not self.root and OPAQUE not in folder.xattrs:
                folder.xattrs.append(OPAQUE)
        return self.root


def _describe(node: Node, entry: Entry) -> None:
    """Give a node what the entry says of it, apart from its content. Raise BadLayer."""
    if not (0 <= entry.uid <= _MOST_ID and 0 <= entry.gid <= _MOST_ID):
        raise BadLayer(f"the archive has an owner that Linux does not have: {shown(entry.name)}")
    node.mode = stat.S_IFMT(node.mode) | entry.mode
    node.uid, node.gid, node.mtime = entry.uid, entry.gid, entry.mtime
    node.xattrs = list(_attributes(entry))
    if entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        major, minor = entry.device
        if not (0 <= major <= _MOST_MAJOR and 0 <= minor <= _MOST_MINOR):
            raise BadLayer(f"the archive has a device that Linux does not have: {shown(entry.name)}")
        node.device = (major, minor)
    elif entry.kind == tar.SYMLINK:
        node.mode, node.content, node.size = stat.S_IFLNK | 0o777, entry.link, len(entry.link)
    elif entry.kind == tar.FILE:
        node.size = entry.size


def _attributes(entry: Entry) -> Iterator[tuple[bytes, bytes]]:
    total = 0
    for name, value in entry.xattrs:
        total += len(name) + len(value)
        if len(name) > _MOST_XATTR_NAME or len(value) > _MOST_XATTR_VALUE or total > _MOST_XATTRS or b"\0" in name:
            raise BadLayer(f"the archive has extended attributes that Linux does not have: {shown(entry.name)}")
        if not name.startswith(_OVERLAYS):
            yield name, value


def walk(root: Node) -> Iterator[Node]:
    """Yield each node once, a directory before what is in it, whatever its depth and the number of its names."""
    todo, seen = [root], {id(root)}
    while todo:
        node = todo.pop()
        yield node
        for child in (node.children or {}).values():
            if id(child) not in seen:
                seen.add(id(child))
                todo.append(child)
