"""Compressed streams as plain ones, by their first bytes: gzip, zstd, bzip2, xz, or none of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol, cast

from dbt.containers.images.errors import BadLayer

#: What a zstd or xz stream may need of memory. By default, the tools that write them need at most 128 and 64 MiB.
_MOST_WINDOW: Final = 128 << 20
_MOST_XZ_MEMORY: Final = 192 << 20
_PIECE: Final = 1 << 18
_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"


class ByteSource(Protocol):
    """What has bytes, which can be read once. Unlike a file, it may give fewer than are asked for."""

    def read(self, size: int, /) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes have been read already."""

    def __init__(self, first: bytes, rest: ByteSource) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._first:
            size = len(self._first) if size < 0 else size
            piece, self._first = self._first[:size], self._first[size:]
            return piece
        return self._rest.read(_PIECE if size < 0 else size)


class _Members:
    """The content of one compressed stream after another. ``make`` makes a decompressor for each."""

    def __init__(self, source: ByteSource, make: Callable[[], _Decompressor]) -> None:
        self._source, self._make, self._now, self._held = source, make, make(), b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._now.eof:
                self._held = self._now.unused_data.lstrip(b"\0") or self._source.read(_PIECE).lstrip(b"\0")
                if not self._held:
                    return b""
                self._now = self._make()
            elif self._now.needs_input and not self._held:
                self._held = self._source.read(_PIECE)
                if not self._held:
                    raise EOFError
            found = self._now.decompress(self._held, size)
            self._held = b""
            if found:
                return found


class _Checked:
    """A decompressing stream whose errors are BadLayer's."""

    def __init__(self, stream: ByteSource, kind: str, errors: tuple[type[Exception], ...]) -> None:
        self._stream, self._kind, self._errors = stream, kind, errors

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except self._errors as error:
            reason = str(error) or "it ends too early"
            raise BadLayer(f"the {self._kind} stream of the archive is damaged: {reason}") from None


def is_packed(first: bytes) -> bool:
    """Return True if a stream that begins so is compressed."""
    return first.startswith((_GZIP, _ZSTD, _BZIP2, _XZ))


def unpacked(stream: BinaryIO | ByteSource) -> ByteSource:
    """Return the content of a stream that is compressed or not. Its ``read`` raises BadLayer for a damaged stream."""
    first = b""
    while len(first) < 6 and (piece := stream.read(6 - len(first))):
        first += piece
    source = _Prefixed(first, stream)
    if first.startswith(_GZIP):
        return _Checked(gzip.GzipFile(fileobj=source), "gzip", (gzip.BadGzipFile, EOFError, zlib.error))
    if first.startswith(_ZSTD) or (first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5):
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        reader = decompressor.stream_reader(cast(BinaryIO, source), read_size=_PIECE, read_across_frames=True)
        return _Checked(reader, "zstd", (zstandard.ZstdError,))
    if first.startswith(_BZIP2):
        return _Checked(_Members(source, bz2.BZ2Decompressor), "bzip2", (OSError, EOFError))
    if first.startswith(_XZ):
        members = _Members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_XZ_MEMORY))
        return _Checked(members, "xz", (lzma.LZMAError, EOFError))
    return source
