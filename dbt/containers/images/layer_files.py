"""A layer on the disk: its EROFS image, and a *recipe* that makes its tar archive again from that, byte for byte.

The recipe is what stands in the archive between the contents of large files, compressed, and where those are in the
image. So a layer is on the disk once, and what was pulled can be pushed and saved with the digest that it had.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from dbt.containers.images.erofs_writer import ErofsWriter
from dbt.containers.images.errors import BadLayer, StoreError
from dbt.containers.images.layer_tree import LayerTree, Node
from dbt.containers.images.tar_reader import Entry, Limits, TarReader
from dbt.containers.images.unpacking import ByteSource

#: In a recipe: how many bytes of the archive follow, and what comes after them: an offset in the image and a length.
_STEP: Final = struct.Struct("<QQQ")
_MOST_HELD: Final = 1 << 20
_PIECE: Final = 1 << 20
_LEVEL: Final = 3


class Built(NamedTuple):
    """What was built: the SHA-256 of the archive, and the bytes in its files."""

    diff_id: str
    size: int


def build_layer(source: ByteSource, image: BinaryIO, recipe: BinaryIO, limits: Limits) -> Built:
    """Read an unpacked tar archive and write its image and its recipe to two empty files. Raise BadLayer or OSError."""
    import zstandard

    with zstandard.ZstdCompressor(_LEVEL).stream_writer(recipe, closefd=False) as packed:
        builder = _Builder(source, image, _Recipe(packed), limits)
        return builder.build()


class _Recipe:
    """Takes the archive from its beginning to its end, and writes the recipe of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held: list[bytes] = []
        self._size = 0

    def between(self, piece: bytes) -> None:
        self._held.append(piece)
        self._size += len(piece)
        if self._size > _MOST_HELD:
            self.content(0, 0)

    def content(self, offset: int, size: int) -> None:
        """Say that the archive goes on with what is in the image."""
        self._file.write(_STEP.pack(self._size, offset, size))
        self._file.write(b"".join(self._held))
        self._held.clear()
        self._size = 0


class _Builder:
    def __init__(self, source: ByteSource, image: BinaryIO, recipe: _Recipe, limits: Limits) -> None:
        self._reader = TarReader(source, limits, recipe.between)
        self._tree = LayerTree(limits)
        self._writer, self._recipe, self._limits = ErofsWriter(image), recipe, limits
        self._size = 0

    def build(self) -> Built:
        for entry in self._reader.entries():
            node = self._tree.add(entry)
            if node is None:
                continue
            self._size += entry.size
            if self._size > self._limits.bytes:
                raise BadLayer(f"the files of the archive have more than {self._limits.bytes} bytes")
            if entry.pieces is not None:
                self._keep_pieces(node, entry)
            elif not self._hold(node):
                self._keep_blocks(node, entry)
        self._recipe.content(0, 0)
        self._writer.write_tree(self._tree.finish())
        return Built(self._reader.digest, self._size)

    def _hold(self, node: Node) -> bool:
        if not self._writer.has_room(node):
            return False
        data = b"".join(self._reader.content())
        self._recipe.between(data)
        self._writer.hold(node, data)
        return True

    def _keep_blocks(self, node: Node, entry: Entry) -> None:
        self._recipe.content(self._writer.begin(node), entry.size)
        for piece in self._reader.content():
            self._writer.write(piece)
        self._writer.finish(node)

    def _keep_pieces(self, node: Node, entry: Entry) -> None:
        assert entry.pieces is not None
        start = self._writer.begin(node)
        for offset, size in entry.pieces.pieces:
            self._recipe.content(start + offset, size)
            self._writer.skip_to(start + offset)
            for piece in self._reader.content(size):
                self._writer.write(piece)
        self._writer.finish(node)


def archive_of(image: str, recipe: str, diff_id: str) -> Iterator[bytes]:
    """Yield the archive of which a layer was made. Raise StoreError, at the end, if it is not the same."""
    import zstandard

    found = hashlib.sha256()
    try:
        with open(image, "rb", 0) as content, open(recipe, "rb") as packed:
            for piece in _pieces(zstandard.ZstdDecompressor().stream_reader(packed), content.fileno()):
                found.update(piece)
                yield piece
    except (OSError, zstandard.ZstdError) as error:
        raise StoreError(f"the layer {diff_id} cannot be read: {error}") from None
    if f"sha256:{found.hexdigest()}" != diff_id:
        raise StoreError(f"the layer {diff_id} is damaged")


def _pieces(steps: BinaryIO, image: int) -> Iterator[bytes]:
    while head := steps.read(_STEP.size):
        if len(head) < _STEP.size:
            return  # the sum will be wrong
        between, offset, size = _STEP.unpack(head)
        while between and (piece := steps.read(min(between, _PIECE))):
            between -= len(piece)
            yield piece
        while size and (piece := os.pread(image, min(size, _PIECE), offset)):
            offset += len(piece)
            size -= len(piece)
            yield piece


def size_of_archive(recipe: str, diff_id: str) -> int:
    """Return how many bytes the archive of a layer has. Raise StoreError."""
    import zstandard

    total = 0
    try:
        with open(recipe, "rb") as packed:
            steps = zstandard.ZstdDecompressor().stream_reader(packed)
            while len(head := steps.read(_STEP.size)) == _STEP.size:
                between, _, size = _STEP.unpack(head)
                total += between + size
                while between and (piece := steps.read(min(between, _PIECE))):
                    between -= len(piece)
    except (OSError, zstandard.ZstdError) as error:
        raise StoreError(f"the layer {diff_id} cannot be read: {error}") from None
    return total
