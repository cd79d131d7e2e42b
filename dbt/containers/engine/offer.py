"""What an engine says of a container that is to go to another one."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from dbt.containers.engine.records import Definition, State

_BOOT: Final = "/proc/sys/kernel/random/boot_id"


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    """A container that is to come. ``names`` are its files about names.

    ``folder`` is its directory, and ``files`` are its disk and what it mounts of the host, by their paths: each has a
    device and a number there. ``boot`` tells which host that is. To another host no files are offered.
    """

    name: str
    definition: Definition
    state: State
    names: dict[str, bytes]
    folder: str = ""
    files: dict[str, tuple[int, int]] = {}
    boot: str = ""


def place_of(path: str) -> tuple[int, int]:
    """Return the device and the number of a file. Raise OSError if there is none."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def boot_of_host() -> str:
    """Return what tells this host, and since when it runs, from all others."""
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()
