"""Snapshots for programs: states of machines are written to files and read from them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike

from dbt.memory.ram_image import RamImage
from dbt.snapshot.chain import MAX_DEPTH, SnapshotChain
from dbt.snapshot.errors import SnapshotNotWritten
from dbt.snapshot.images import finish_reading, known_image, remember
from dbt.vm.options import path_text
from dbt.vm.vm_state import VmState


def write_snapshot(
    state: VmState,
    path: str | PathLike[str],
    parent: str | PathLike[str] | None = None,
    pages: Iterable[int] | None = None,
    durable: bool = True,
) -> str:
    """Write a state to the file ``path``, which is replaced in one step. Return the digest that names the snapshot.

    With ``parent``, another snapshot in the same directory, the file has only what differs from it, and needs it
    unchanged to be read. ``pages`` are the numbers of the pages that may differ, if the caller knows. Otherwise the
    parent is read, if this process has not done that, and compared. ``durable``: wait until the file is on the disk.

    Raise SnapshotNotWritten if the file cannot be written, in which case an existing one stays. Raise SnapshotError if
    the parent cannot be used.
    """
    from dbt.snapshot.writer import Base, changed_pages, write

    name = path_text("path", path)
    base = None
    if parent is not None:
        with SnapshotChain(path_text("parent", parent)) as chain:
            _check_parent(name, chain)
            if chain.layout != state.ram.layout:
                where = f"RAM at {state.ram.layout}, and {chain.files[0].path} is of one with RAM at {chain.layout}"
                raise SnapshotNotWritten(f"{name}: the machine has {where}. Save everything")
            changed = changed_pages(_image_of(chain), state.ram) if pages is None else sorted(set(pages))
            base = Base(chain.digest, os.path.basename(os.path.realpath(chain.files[0].path)), changed)
    digest = write(name, state.values, state.ram, base, durable)
    remember(digest, state.ram)
    return digest.hex()


def read_snapshot(path: str | PathLike[str]) -> VmState:
    """Return the state that a file and its parents have. It belongs to the caller, who may close it.

    RAM is read, checked and decompressed once, as long as this process keeps a state that was read from the file. The
    values are as they are in the file, and :meth:`dbt.vm.machine.Machine.restore` checks them. Raise SnapshotError for
    a file that is no snapshot, is damaged, or lacks its parent.
    """
    begun = finish_reading()  # which may be of this file
    with SnapshotChain(path_text("path", path)) as chain:
        values = chain.values()
        image = known_image(chain.digest)
        image = RamImage(chain.layout, chain.pieces()) if image is None else image.share()
        remember(chain.digest, image)
    if begun is not None:
        begun.close()
    return VmState(values, image)


def check_writable(path: str | PathLike[str], parent: str | PathLike[str] | None = None) -> None:
    """Raise SnapshotNotWritten if it is certain that no snapshot, or no increment to ``parent``, could be written to
    ``path``. Raise SnapshotError if the parent cannot be used.
    """
    from dbt.snapshot.replacement import check_place

    name = path_text("path", path)
    try:
        check_place(name)
    except (OSError, ValueError) as error:
        raise SnapshotNotWritten.of(name, error) from None
    if parent is not None:
        with SnapshotChain(path_text("parent", parent)) as chain:
            _check_parent(name, chain)


def _check_parent(path: str, chain: SnapshotChain) -> None:
    parent = chain.files[0].path
    if os.path.dirname(os.path.realpath(path)) != os.path.dirname(os.path.realpath(parent)):
        raise SnapshotNotWritten(
            f"{path}: an increment is in the directory of its parent, {parent}. Give a name there, or save everything"
        )
    target = _identity(path)
    if target is not None and any(file.identity == target for file in chain.files):
        raise SnapshotNotWritten(
            f"{path}: the increment would replace a file that it needs. Give another name, or save everything"
        )
    if len(chain.files) >= MAX_DEPTH:
        raise SnapshotNotWritten(
            f"{path}: its parent {parent} has {MAX_DEPTH - 1} parents already, which is the limit. Save everything"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # there is none yet, or its writing says what is wrong
        return None
    return status.st_dev, status.st_ino


def _image_of(chain: SnapshotChain) -> RamImage:
    """Return an image of a snapshot's RAM, which may be somebody else's."""
    return known_image(chain.digest) or RamImage(chain.layout, chain.pieces())
