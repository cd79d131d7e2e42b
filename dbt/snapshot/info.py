"""What a snapshot is of, without a machine: where its file comes from, its RAM, and what its values say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

from dbt.abi.layout import PAGE_SHIFT
from dbt.abi.version import VERSION
from dbt.devices.state import Plain, State, StateError
from dbt.memory.ram import RamLayout
from dbt.snapshot.chain import SnapshotChain
from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.file import SnapshotFile
from dbt.snapshot.format import FORMAT
from dbt.vm.options import path_text

#: The fields that say what is attached to a machine, with the words for one and for more of it.
_ATTACHED = (
    ("drives", "disk", "disks"),
    ("nets", "network card", "network cards"),
    ("shares", "shared directory", "shared directories"),
)


@dataclass(frozen=True)
class FileInfo:
    """One file of a snapshot: its path, its size in bytes, the digest that names its snapshot, the version of dbt that
    wrote it, and the numbers of pages that it has and that it clears.
    """

    path: str
    size: int
    digest: str
    dbt: str
    pages: int
    cleared: int

    @classmethod
    def of(cls, file: SnapshotFile) -> FileInfo:
        header = file.header
        return cls(file.path, file.size, file.digest.hex(), header.dbt, header.pages.total, header.cleared.total)


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot: its file and those of its parents, the nearest first, where it has RAM, and the values of the state.

    The values are as they are in the file. They have been decoded, and not checked.
    """

    file: FileInfo
    parents: tuple[FileInfo, ...]
    layout: RamLayout
    values: State
    format: int = FORMAT

    @classmethod
    def read(cls, path: str | PathLike[str]) -> SnapshotInfo:
        """Return what a file is of. Its RAM is not read. Raise SnapshotError if the file cannot be used."""
        with SnapshotChain(path_text("path", path)) as chain:
            first, *others = map(FileInfo.of, chain.files)
            return cls(first, tuple(others), chain.layout, chain.values())

    @property
    def ram_pages(self) -> int:
        """The number of pages of RAM, zero or not."""
        return self.layout.size >> PAGE_SHIFT

    @property
    def open_files(self) -> tuple[str, ...]:
        """The names of the files that the guest has open by semihosting, its console not among them."""
        handles = self.value("handles")
        each: Iterable[Any] = handles.values() if isinstance(handles, dict) else ()
        names = [one.get("name") for one in each if isinstance(one, dict)]
        found = [name for name in names if isinstance(name, bytes) and not name.startswith(b":")]
        return tuple(name.decode("utf-8", "replace") for name in found)

    @property
    def attached(self) -> tuple[str, ...]:
        """What a machine must be given to be restored, in words: disks, network cards, directories, a socket."""
        found = []
        for name, one, more in _ATTACHED:
            value = self.value(name)
            count = value if type(value) is int else len(value) if isinstance(value, list) else 0
            if count:
                found.append(f"{count} {one if count == 1 else more}")
        if self.value("vsock"):
            found.append("vsock")
        return tuple(found)

    def value(self, *names: str) -> Plain:
        """Return the value at a path of names, or None if there is none."""
        found: Any = self.values
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found  # type: ignore[no-any-return]


def verify(path: str | PathLike[str], files: str | PathLike[str] | None = None) -> SnapshotInfo:
    """Check every byte of a snapshot and of its parents, and that a machine can have the state. Return what it is of.

    ``files`` is the directory whose files the guest may open. Without it, the state of a guest that has files open is
    not restored, and neither is a machine with disks, network cards and the like
    (:attr:`SnapshotInfo.attached`). Raise SnapshotError for what is wrong.
    """
    from dbt.host.console import CaptureConsole
    from dbt.snapshot.snapshots import read_snapshot
    from dbt.vm.machine import Machine

    name = path_text("path", path)
    with SnapshotChain(name) as chain:
        chain.check()
    info = SnapshotInfo.read(name)
    if info.attached or (files is None and info.open_files):
        return info
    with read_snapshot(name) as state:
        try:
            Machine.restore(state, tier="reference", console=CaptureConsole(), files=files).close()
        except StateError as error:
            raise impossible(name, error) from None
    return info


def impossible(path: str, error: Exception) -> SnapshotError:
    """Return the error for a snapshot that cannot be restored, because no machine can have its state, or not here."""
    reason = str(error).removesuffix(".")
    writer = SnapshotInfo.read(path).file.dbt
    versions = f". It was written by dbt {writer}, and this is {VERSION}" if writer != VERSION else ""
    return SnapshotError(f"{path}: the machine cannot be restored: {reason}{versions}")
