"""The disk under a store: its errors, what is certainly written, and room for making room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Final

from dbt.containers.images.errors import StoreError
from dbt.devices.medium import NO_ROOM

#: What the database may need to forget something, in bytes, with its log.
_RESERVE: Final = 1 << 20
#: Fewer zeros are written, and so are more of them in one piece, which is larger than what is read at once.
_HOLE: Final = 4096
_ZEROS: Final = bytes(1 << 18)


def no_room(what: str, place: str) -> str:
    """Return the text of the error that ``place``, a file or directory of the host, has no room for ``what``."""
    remedy = "Make some on that disk: `docker system prune` removes what no container uses"
    return f"there is no room left for {what} in {place}: no space left on device. {remedy}"


def not_kept(what: str, place: str, error: OSError) -> StoreError:
    """Return the error that ``what`` cannot be written to a file or directory of the host."""
    if error.errno in NO_ROOM:
        return StoreError(no_room(what, place))
    return StoreError(f"there is no place for {what} in {place}: {error.strerror}")


@contextmanager
def disk_errors(folder: str) -> Iterator[None]:
    """Turn errors of the disk into StoreErrors."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoreError(no_room("images", folder)) from None
        raise StoreError(f"the images in {folder} cannot be changed: {error}") from None


def write_or_skip(file: IO[bytes], data: bytes) -> None:
    """Write the next piece of a file, or leave a hole for zeros, so that an archive of packed zeros takes no disk. The
    file has to be truncated to its size, at its end at the latest.
    """
    if len(data) >= _HOLE and _ZEROS.startswith(data):
        file.seek(len(data), os.SEEK_CUR)
    else:
        file.write(data)


def write_down(*files: BinaryIO) -> None:
    """Return when the files are on the disk."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def write_down_folder(path: str) -> None:
    """Return when the names in a directory are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_files(*paths: str) -> None:
    """Remove files, if they are there."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


class Reserve:
    """A file without a use, which is not there while something is removed: a database on a full disk could not forget
    anything, and so nothing could be removed.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @contextmanager
    def given(self) -> Iterator[None]:
        """Give the room away for the time of the block."""
        remove_files(self._path)
        try:
            yield
        finally:
            self.take()

    def take(self) -> None:
        """Take the room. On a disk that is full, that has to wait until the next time that something was removed."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in NO_ROOM:
                return
            raise
        try:
            os.posix_fallocate(handle, 0, _RESERVE)
        except OSError:
            os.ftruncate(handle, 0)
        finally:
            os.close(handle)
