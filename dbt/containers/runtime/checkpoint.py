"""A checkpoint of a container: the state of its VM, its disk, and where the conversation with its guest is.

It is a directory. The disk in it has the time of its original, by which the state knows it.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from dbt.containers.runtime.port import SESSIONS
from dbt.containers.runtime.session import WINDOW
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.linux.protocol import FRAME_MOST, INPUT_MOST
from dbt.memory.ram import data_parts
from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.snapshots import read_snapshot, write_snapshot

if TYPE_CHECKING:
    from dbt.vm.vm_state import VmState

_STATE, _DISK, _PORT = "state", "disk", "port"
_PIECE: Final = 1 << 20


class SessionState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session: its number and process, how much output the guest may still send, and how much input waits there."""

    number: Annotated[int, Meta(ge=0, lt=SESSIONS)]
    pid: Annotated[int, Meta(ge=1, lt=1 << 31)]
    credit: Annotated[int, Meta(ge=0, le=WINDOW)]
    waiting: Annotated[int, Meta(ge=0, le=INPUT_MOST)]


class PortState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The beginning of a frame that has come already, and the sessions."""

    begun: Annotated[bytes, Meta(max_length=FRAME_MOST + 8)]
    sessions: Annotated[list[SessionState], Meta(max_length=SESSIONS)]


def write_checkpoint(folder: str, state: VmState, disk: str, port: PortState) -> None:
    """Write a checkpoint to a directory, which must not exist. The VM does not execute. Raise RuntimeFailure."""
    try:
        os.mkdir(folder, 0o700)
    except OSError as error:
        raise RuntimeFailure(f"the checkpoint {folder} cannot be written: {error}") from None
    try:
        copy_disk(disk, os.path.join(folder, _DISK))
        with open(os.path.join(folder, _PORT), "wb") as file:
            file.write(msgspec.json.encode(port))
        write_snapshot(state, os.path.join(folder, _STATE))
    except (OSError, SnapshotError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeFailure(f"the checkpoint {folder} cannot be written: {error}") from None


def read_checkpoint(folder: str, disk: str) -> tuple[VmState, PortState]:
    """Return the state of a VM and of its port, and put its disk to where that of its container is. Raise
    RuntimeFailure.
    """
    try:
        with open(os.path.join(folder, _PORT), "rb") as file:
            port = msgspec.json.decode(file.read(), type=PortState)
        copy_disk(os.path.join(folder, _DISK), disk)
        return read_snapshot(os.path.join(folder, _STATE)), port
    except (OSError, SnapshotError, msgspec.MsgspecError) as error:
        raise RuntimeFailure(f"the checkpoint {folder} cannot be used: {error}") from None


def copy_disk(source: str, target: str) -> None:
    """Copy a disk, but no zeros, with its time. A disk that is there is replaced."""
    new = f"{target}.new"
    try:
        with open(source, "rb") as read, open(new, "xb") as written:
            found = os.fstat(read.fileno())
            os.ftruncate(written.fileno(), found.st_size)
            for start, end in data_parts(read.fileno(), 0, found.st_size):
                for at in range(start, end, _PIECE):
                    os.pwrite(written.fileno(), os.pread(read.fileno(), min(_PIECE, end - at), at), at)
            os.fsync(written.fileno())
        os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.replace(new, target)
    except OSError:
        if os.path.exists(new):
            os.unlink(new)
        raise
