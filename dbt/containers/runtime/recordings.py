"""A recording of a container: all that its machine was given, from the first instruction to the end.

It is a directory:

    input     a recording of the machine's input (:mod:`dbt.vm.recording`), whose origin is an :class:`Origin`
    disk      the container's own disk as it was at the start

The image's layers are not in it: they are named by their digests, and have to be in the store when it is replayed. What
of the host came by network cards, mounted directories and the agent's port is in ``input``, and is not asked for again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from dbt.containers.runtime.checkpoint import copy_disk
from dbt.containers.runtime.spec import MOST_CARDS, RuntimeFailure, Spec
from dbt.hypervisor.carrier import RecordingFile
from dbt.linux.template import LEAST_MEMORY
from dbt.memory.ram import data_parts

if TYPE_CHECKING:
    from dbt.vm.identity import Identity

#: The names in a recording's directory.
INPUT, DISK = "input", "disk"
#: The version of the directory and of :class:`Origin`.
FORMAT: Final = 1
_ADDRESS: Final = 6
_BLOCK: Final = 1 << 16
#: As docker has it, and what a digest is.
_MOST_LAYERS: Final = 128
_DIGEST: Final = r"^(sha256:)?[0-9a-f]{64}$"

Address = Annotated[bytes, Meta(min_length=_ADDRESS, max_length=_ADDRESS)]


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"version": "dbt-container-recording"}):
    """What a container's machine was made of.

    - ``container``: its id. ``layers``: digests of its image's layers, the lowest first. ``disk``: that of the disk.
    - ``memory``: RAM in bytes. ``rng_seed``, ``addresses``, ``wall_clock``: see :class:`dbt.vm.identity.Identity`.
    """

    version: Annotated[int, Meta(ge=1)]
    container: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    layers: Annotated[list[Annotated[str, Meta(pattern=_DIGEST)]], Meta(max_length=_MOST_LAYERS)]
    disk: Annotated[str, Meta(pattern=_DIGEST)]
    memory: Annotated[int, Meta(ge=LEAST_MEMORY, le=1 << 32, multiple_of=1 << 20)]
    rng_seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    addresses: Annotated[list[Address], Meta(min_length=MOST_CARDS, max_length=MOST_CARDS)]
    wall_clock: Annotated[int, Meta(ge=0, lt=1 << 40)]


class RecordingPlan(NamedTuple):
    """A recording that is to be made: its directory, which must not exist, and the digests of the image's layers."""

    folder: str
    layers: tuple[str, ...]


@contextmanager
def new_recording(plan: RecordingPlan, spec: Spec, memory: int, identity: Identity) -> Iterator[RecordingFile]:
    """Begin a recording of a container, and yield its file for the machine. If that fails, nothing is left of it. Raise
    RuntimeFailure if it cannot be written.
    """
    assert identity.wall_clock is not None
    folder = plan.folder
    try:
        os.mkdir(folder, 0o700)
    except OSError as error:
        raise RuntimeFailure(f"the recording {folder} cannot be written: {error.strerror}") from None
    file = -1
    try:
        try:
            copy_disk(spec.disk, os.path.join(folder, DISK))
            origin = Origin(
                FORMAT,
                spec.id,
                list(plan.layers),
                disk_digest(os.path.join(folder, DISK)),
                memory,
                identity.rng_seed,
                list(identity.addresses),
                identity.wall_clock,
            )
            path = os.path.join(folder, INPUT)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RuntimeFailure(f"the recording {folder} cannot be written: {error.strerror}") from None
        yield RecordingFile(file, path, msgspec.to_builtins(origin))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if file >= 0:
            os.close(file)


def disk_digest(path: str) -> str:
    """Return a digest of a disk's size, and of its blocks that are not zero, wherever the file has holes. Raise
    OSError.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found.update(size.to_bytes(8, "little"))
        done = 0
        for start, end in data_parts(file.fileno(), 0, size):
            for at in range(max(start // _BLOCK * _BLOCK, done), end, _BLOCK):
                block = os.pread(file.fileno(), _BLOCK, at)
                done = at + _BLOCK
                if block.strip(b"\0"):
                    found.update(at.to_bytes(8, "little") + block)
    return found.hexdigest()
