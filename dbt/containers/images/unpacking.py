"""Compressed streams as plain ones, by their first bytes: gzip, zstd, bzip2, xz, or none of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from dbt.containers.images.errors import BadLayer

if TYPE_CHECKING:
    import zstandard

#: What a zstd or xz stream may need of memory. By default, the tools that write them need at most 128 and 64 MiB.
_MOST_WINDOW: Final = 128 << 20
_MOST_XZ_MEMORY: Final = 192 << 20
_PIECE: Final = 1 << 18
#: A block of zstd has at least 3 bytes and at most 128 KiB of content, so that these become at most 86 MB at once.
_ZSTD_STEP: Final = 2048
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


class _Zstd:
    """One frame. libzstd's streams would not tell that the last one is cut off."""

    needs_input = True

    def __init__(self, decompressor: zstandard.ZstdDecompressor) -> None:
        self._object = decompressor.decompressobj()

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._object.decompress(data)


class _Members:
    """The content of one compressed stream after another. ``make`` makes a decompressor for each, which is given at
    most ``step`` bytes at once.
    """

    def __init__(self, source: ByteSource, make: Callable[[], _Decompressor], step: int = _PIECE) -> None:
        self._source, self._make, self._now, self._step = source, make, make(), step
        self._ready = memoryview(b"")
        self._input, self._at = b"", 0

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            if self._now.eof:
                self._at -= len(self._now.unused_data)
                if not self._skip_zeros():
                    return b""
                self._now = self._make()
            if self._at == len(self._input) and self._now.needs_input and not self._refill():
                raise EOFError
            step = self._input[self._at : self._at + self._step]
            self._at += len(step)
            self._ready = memoryview(self._now.decompress(step, size))
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)

    def _refill(self) -> bool:
        """Take the next piece of the source. Return False at its end."""
        self._input, self._at = self._source.read(_PIECE), 0
        return bool(self._input)

    def _skip_zeros(self) -> bool:
        """Go to where the next stream begins. Return False if there is none."""
        while True:
            while self._at < len(self._input) and self._input[self._at] == 0:
                self._at += 1
            if self._at < len(self._input):
                return True
            if not self._refill():
                return False


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

        shared = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        members = _Members(source, lambda: _Zstd(shared), _ZSTD_STEP)
        return _Checked(members, "zstd", (zstandard.ZstdError, EOFError))
    if first.startswith(_BZIP2):
        return _Checked(_Members(source, bz2.BZ2Decompressor), "bzip2", (OSError, EOFError))
    if first.startswith(_XZ):
        members = _Members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_XZ_MEMORY))
        return _Checked(members, "xz", (lzma.LZMAError, EOFError))
    return source
