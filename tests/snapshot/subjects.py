"""What the snapshots are of that are mutated: an operating system, a guest with a disk, and one with open files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

from dbt import CaptureConsole, Machine
from dbt.host.drive import Drive
from dbt.host.net_option import Net
from dbt.host.ninep.share import Share
from dbt.vm.options import HostOptions
from tests.devices.virtio.guest import ORIGIN, SECTOR, copier
from tests.devices.virtio.ninep_guest import NinePGuest
from tests.snapshot.machines import FIRST, SECOND, minios

_RAM = 32 << 20
_SECTORS = 64
_CARD = Net("none")


class Subject(NamedTuple):
    """``start`` returns a machine at its beginning, whose files are beneath a directory. It is saved after ``first``
    and after ``second`` instructions. ``host`` returns the arguments with which it is restored.
    """

    start: Callable[[Path], Machine]
    first: int
    second: int
    host: Callable[[Path], HostOptions]


def _share(folder: Path) -> list[Share]:
    path = folder / "share"
    if not path.exists():
        path.mkdir()
        for name in ("a", "b"):
            (path / name).write_bytes(name.encode() * 100)
    return [Share(str(path))]


def _drives(folder: Path) -> list[Drive]:
    """A disk with changes, and a read-only one."""
    image = folder / "image"
    if not image.exists():
        image.write_bytes(Random(5).randbytes(_SECTORS * SECTOR))
    return [Drive(str(image), snapshot=True), Drive(str(image), read_only=True)]


def _with_disk(folder: Path) -> Machine:
    """A guest that copies sectors of the first of its devices."""
    machine = Machine(
        _RAM,
        "threaded",
        console=CaptureConsole(),
        board="virt",
        devices=("rng", "balloon", "console"),
        drives=_drives(folder),
        nets=[_CARD],
        shares=_share(folder),
    )
    machine.load_bytes(copier(), base=ORIGIN)
    return machine


def _host_of_disk(folder: Path) -> HostOptions:
    return {"drives": _drives(folder), "nets": [_CARD], "shares": _share(folder)}


def _with_files(folder: Path) -> Machine:
    """A guest that has files and a directory open, reads and writes."""
    guest = NinePGuest()
    for fid, name, flags in ((1, "a", os.O_RDWR), (2, "b", os.O_RDONLY)):
        guest.walk(fid, name)
        guest.open(fid, flags)
    guest.walk(3)
    guest.open(3, os.O_RDONLY | os.O_DIRECTORY)
    for at in range(8):
        guest.read_at(1, at, 30)
    guest.write_at(1, 100, b"more")
    machine = Machine(_RAM, "threaded", board="virt", shares=_share(folder), console=CaptureConsole())
    machine.load_bytes(guest.image(), base=ORIGIN)
    return machine


SUBJECTS: Mapping[str, Subject] = {
    "minios": Subject(lambda _: minios(input_=b"keys that nobody reads"), FIRST, SECOND, lambda _: HostOptions()),
    "disk": Subject(_with_disk, 20_000, 25_000, _host_of_disk),
    "files": Subject(_with_files, 2_500, 3_500, lambda folder: HostOptions(shares=_share(folder))),
}
