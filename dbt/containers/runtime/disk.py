"""A container's own disk: a raw image with an empty ext4 file system, of which nothing but its beginning takes room."""

from __future__ import annotations

import gzip
import os
from functools import cache
from typing import Final

from dbt.linux.images import DISK_PATH

_NUMBER: Final = 8


def make_disk(path: str) -> None:
    """Write a new disk to a file that must not exist. Raise OSError if the host has no room."""
    size, pieces = _blank_disk()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, size)
        for offset, data in pieces:
            done = 0
            while done < len(data):
                done += os.pwrite(handle, memoryview(data)[done:], offset + done)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(handle)


@cache
def _blank_disk() -> tuple[int, list[tuple[int, bytes]]]:
    """Return the size of a disk, and its pieces by their offsets (guests/linux/blank_disk.py)."""
    with open(DISK_PATH, "rb") as file:
        data = gzip.decompress(file.read())

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + _NUMBER], "little")

    at, pieces = _NUMBER, []
    while at < len(data):
        offset, size = number(at), number(at + _NUMBER)
        at += 2 * _NUMBER
        pieces.append((offset, data[at : at + size]))
        at += size
    return number(0), pieces
