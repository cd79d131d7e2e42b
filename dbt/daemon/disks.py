"""Disks that a definition gets and loses. A machine has the disks with which it was started: virtio-mmio, by which the
boards have them, knows no other way.
"""

from __future__ import annotations

from dbt.daemon.definition import Definition
from dbt.daemon.errors import Conflict, NotFound


def with_disk(definition: Definition, drive: str) -> Definition:
    """Return the definition with one disk more, in the words of ``--drive``."""
    drives = _drives(definition)
    if _file(drive) in map(_file, drives):
        raise Conflict(f"the domain {definition.name} has the disk {_file(drive)} already")
    return definition.with_options(drive=[*drives, drive])


def without_disk(definition: Definition, file: str) -> Definition:
    """Return the definition without the disk whose file has that path."""
    drives = _drives(definition)
    left = [drive for drive in drives if _file(drive) != _file(file)]
    if len(left) == len(drives):
        known = ", ".join(map(_file, drives)) or "none"
        raise NotFound(f"the domain {definition.name} has no disk {_file(file)}: it has {known}")
    return definition.with_options(drive=left)


def _drives(definition: Definition) -> list[str]:
    drives = definition.machine.get("drive", [])
    assert isinstance(drives, list)
    return drives


def _file(drive: str) -> str:
    """Return the path of the file in the words of ``--drive``, or what is a path itself."""
    parts = drive.replace(",,", "\0").split(",")
    found = next((part.removeprefix("file=") for part in parts if part.startswith("file=")), parts[0])
    return found.replace("\0", ",")
