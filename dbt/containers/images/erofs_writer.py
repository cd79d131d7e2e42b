"""EROFS images of layers, which a guest mounts: uncompressed, with everything that a tar archive can say of a file.

The content of files is written as it comes. When the tree is complete, directories and inodes follow, and at last the
superblock, without which nothing is an image.
"""

from __future__ import annotations

import stat
from typing import BinaryIO, Final

from dbt.containers.images.disk import write_or_skip
from dbt.containers.images.erofs_format import (
    BLOCK,
    BLOCK_BITS,
    ENTRY,
    INLINE,
    INODE,
    KINDS,
    LONG_FORM,
    MAGIC,
    MTIME,
    PLAIN,
    PREFIXES,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_AT,
    XATTR,
    XATTR_HEADER,
    encode_device,
)
from dbt.containers.images.layer_tree import Node, walk

#: Smaller files stand behind their inodes. They have to be in one block with them, so larger ones would leave gaps.
MOST_INLINE: Final = 2048
#: What the content of such files may take of memory, in bytes, in one image. Those that come later have blocks.
_MOST_HELD: Final = 64 << 20
_PIECES_AT_ONCE: Final = 8192
#: Where the first inode is. No inode has the number 0.
_FIRST_INODE: Final = 2 * SLOT


class ErofsWriter:
    """Writes an image to an empty file, which has to be seekable."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = BLOCK
        self._held = 0

    # -- content -----------------------------------------------------------------------------------

    def has_room(self, node: Node) -> bool:
        """Return True if a file's content may be held: it is small, and not too much is held already."""
        return node.size <= MOST_INLINE and self._held + node.size <= _MOST_HELD

    def hold(self, node: Node, data: bytes) -> None:
        """Take a small file's whole content."""
        self._held += len(data)
        node.content = data

    def begin(self, node: Node) -> int:
        """Return the offset in the image at which a file's content begins. The next writes go there."""
        node.block = self._end // BLOCK
        self._file.seek(self._end)
        return self._end

    def write(self, data: bytes) -> None:
        write_or_skip(self._file, data)

    def skip_to(self, offset: int) -> None:
        """Leave zeros up to an offset in the image."""
        self._file.seek(offset)

    def finish(self, node: Node) -> None:
        """End a file's content."""
        self._end += -(-node.size // BLOCK) * BLOCK

    # -- the tree ----------------------------------------------------------------------------------

    def write_tree(self, root: Node) -> int:
        """Write everything else, and return the size of the image in bytes, a multiple of 4096."""
        nodes = list(walk(root))
        inodes = [_Inode(node) for node in nodes]
        parents = _count_links(root, nodes)
        for inode in inodes:
            self._place_blocks(inode, parents)
        start, at = self._end, _FIRST_INODE
        for number, inode in enumerate(inodes, 1):
            inode.node.inode = number
            at = inode.place(at)
        for inode in inodes:
            if inode.folder is not None:
                self._file.seek(inode.node.block * BLOCK)
                self._file.writelines(inode.folder.blocks(inode.blocks))
        self._write_inodes(inodes, start, at)
        size = start + -(-at // BLOCK) * BLOCK
        self._file.truncate(size)
        self._write_superblock(root, len(nodes), start // BLOCK, size)
        return size

    def _place_blocks(self, inode: _Inode, parents: dict[int, Node]) -> None:
        """Give a directory its blocks, and a block to a link or a small file that does not fit behind its inode."""
        node = inode.node
        if node.children is not None:
            inode.folder = _Folder(node, parents[id(node)])
            node.size = inode.folder.size
            inode.blocks, inode.tail = divmod(node.size, BLOCK)
        elif node.content is not None:
            inode.tail = len(node.content)
        if INODE.size + len(inode.xattrs) + inode.tail > BLOCK:
            inode.blocks += 1
            inode.tail = 0
            if node.content is not None:
                self._file.seek(self._end)
                self._file.write(node.content)
        if inode.blocks:
            node.block = self._end // BLOCK
            self._end += inode.blocks * BLOCK

    def _write_inodes(self, inodes: list[_Inode], start: int, size: int) -> None:
        self._file.seek(start)
        at, pieces = 0, list[bytes]()
        for inode in inodes:
            node = inode.node
            piece = inode.encoded()
            if inode.tail:
                piece += node.content if inode.folder is None else inode.folder.tail()  # type: ignore[operator]
            pieces += (bytes(node.nid * SLOT - at), piece)
            at = node.nid * SLOT + len(piece)
            if len(pieces) > _PIECES_AT_ONCE:
                self._file.writelines(pieces)
                pieces.clear()
        pieces.append(bytes(size - at))
        self._file.writelines(pieces)

    def _write_superblock(self, root: Node, count: int, first: int, size: int) -> None:
        self._file.seek(SUPERBLOCK_AT)
        fields = (MAGIC, 0, MTIME, BLOCK_BITS, 0, root.nid, count, 0, 0, size // BLOCK, first, 0)
        self._file.write(SUPERBLOCK.pack(*fields, b"", b"", 0, 0, 0, 0))


class _Inode:
    """A node on its way into an image: what follows its inode, and how many blocks it gets when the tree is written."""

    __slots__ = ("blocks", "folder", "node", "tail", "xattrs")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.folder: _Folder | None = None
        self.xattrs = _encoded_xattrs(node.xattrs) if node.xattrs else b""
        self.blocks = self.tail = 0

    def place(self, at: int) -> int:
        """Give the node its nid, and return where the next inode may be. ``at`` counts from the first inode."""
        size = INODE.size + len(self.xattrs) + self.tail
        room = BLOCK - at % BLOCK
        if self.tail and size > room:
            at += room
        self.node.nid = at // SLOT
        return at + -(-size // SLOT) * SLOT

    def encoded(self) -> bytes:
        """Return the inode and its attributes."""
        node = self.node
        layout = INLINE if self.tail else PLAIN
        place = encode_device(*node.device) if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode) else node.block
        count = (len(self.xattrs) - XATTR_HEADER) // 4 + 1 if self.xattrs else 0
        seconds, nanoseconds = node.mtime
        return (
            INODE.pack(
                *(layout << 1 | LONG_FORM, count, node.mode, 0, node.size, place, node.inode, node.uid, node.gid),
                *(seconds, nanoseconds, node.links),
            )
            + self.xattrs
        )


class _Folder:
    """The content of a directory: in each block the entries, then their names, all in the order of the names."""

    def __init__(self, node: Node, parent: Node) -> None:
        assert node.children is not None
        self._entries = sorted([*node.children.items(), (b".", node), (b"..", parent)], key=_name)
        #: Index of the first entry of each block.
        self._starts = [0]
        used = 0
        for index, (name, _) in enumerate(self._entries):
            used += ENTRY.size + len(name)
            if used > BLOCK:
                self._starts.append(index)
                used = ENTRY.size + len(name)
        self.size = (len(self._starts) - 1) * BLOCK + used

    def blocks(self, count: int) -> list[bytes]:
        """Return the first blocks, in full."""
        return [self._block(number).ljust(BLOCK, b"\0") for number in range(count)]

    def tail(self) -> bytes:
        """Return the last block, as far as it is used."""
        return self._block(len(self._starts) - 1)

    def _block(self, number: int) -> bytes:
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self._entries)
        entries = self._entries[self._starts[number] : end]
        offset = ENTRY.size * len(entries)
        head = bytearray()
        for name, node in entries:
            head += ENTRY.pack(node.nid, offset, KINDS[stat.S_IFMT(node.mode)])
            offset += len(name)
        return bytes(head) + b"".join(map(_name, entries))


def _name(entry: tuple[bytes, Node]) -> bytes:
    return entry[0]


def _count_links(root: Node, nodes: list[Node]) -> dict[int, Node]:
    """Give each node the number of its links, and return the parent of each directory by its identity."""
    parents = {id(root): root}
    for node in nodes:
        node.links += 2 if node.children is not None else 0
        for child in (node.children or {}).values():
            if child.children is None:
                child.links += 1
            else:
                parents[id(child)] = node
                node.links += 1
    return parents


def _encoded_xattrs(xattrs: list[tuple[bytes, bytes]]) -> bytes:
    """Return a node's attributes as they follow its inode, without those that have no place in EROFS."""
    found = bytearray(XATTR_HEADER)
    for name, value in xattrs:
        for prefix, index in PREFIXES:
            if name.startswith(prefix):
                rest = name[len(prefix) :]
                found += XATTR.pack(len(rest), index, len(value)) + rest + value
                found += bytes(-len(found) % 4)
                break
    return bytes(found) if len(found) > XATTR_HEADER else b""
