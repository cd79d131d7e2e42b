"""Leases: how a machine's process is found again by a new host after the old one has gone.

The file ``UUID.lease`` says which process has the machine, and the process holds its lock (flock(2)) as long as it
lives. So a lease whose lock is free is nobody's. The process listens at ``UUID.sock``, where a new host attaches, and
``UUID.machine`` has what that host has to know of the machine. The process writes it before its guest executes
anything, and cannot change it later, so it can be believed. The directory belongs to one user alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dbt.host.endpoint import Endpoint, Listener

_SUFFIX, _SOCKET, _MACHINE = ".lease", ".sock", ".machine"
#: The most bytes of a lease, and of what is kept of a machine.
_MOST: Final = 1 << 14
_MOST_OF_MACHINE: Final = 4 << 20


class Lease(NamedTuple):
    """What a lease says: the domain, and the process that has its machine, with when that started, in ticks of the
    host's clock since it was switched on.
    """

    name: str
    uuid: UUID
    pid: int
    started: int


class HeldLease(NamedTuple):
    """A lease and its socket, of this process."""

    listener: Listener
    lock: int
    path: str
    directory: int

    def keep_machine(self, description: bytes) -> None:
        """Write down what the next host has to know of the machine. Raise OSError if the host refuses."""
        path = _beside(self.path, _MACHINE)
        writer = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with _writing(path), open(writer, "wb") as file:
            file.write(description)
        os.rename(f"{path}.new", path)

    def release(self) -> None:
        """Remove the lease and what belongs to it. The process is about to end. In a jail it cannot, and its host does
        it.
        """
        for path in (self.path, _beside(self.path, _MACHINE)):
            with contextlib.suppress(OSError):
                os.unlink(path)
        self.listener.close()
        os.close(self.lock)
        os.close(self.directory)


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Let an error of the host name the file that is written to."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def check_directory(directory: str) -> None:
    """Make a directory for leases, if there is none. Raise OSError if others than this user can write to it."""
    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.stat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"the directory {directory} for leases is not this user's alone: chmod 700 it")


def take_lease(directory: str, name: str, uuid: UUID) -> HeldLease:
    """Take the lease of a domain for this process. Raise OSError if another process has it, or the host refuses."""
    path, beside = lease_path(directory, uuid), f"{directory}/.{uuid}.{os.getpid()}"
    if read_lease(path) is not None:
        raise FileExistsError(f"another process has the machine of the domain {name}: its lease is {path}")
    lease = Lease(name, uuid, os.getpid(), start_time(os.getpid()))
    writer = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _writing(path):
            os.write(writer, msgspec.json.encode(lease._asdict()))
        lock = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)  # who has this one cannot change what the lease says
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        listener = Endpoint(path=_socket_path(folder, uuid)).listen()
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise
    finally:
        os.close(writer)
    return HeldLease(listener, lock, path, folder)


def _socket_path(directory: int, uuid: UUID) -> str:
    """Return the path of a socket in an open directory, whose own may be longer than the path of a socket can be."""
    return f"/proc/self/fd/{directory}/{uuid}{_SOCKET}"


def _beside(lease: str, suffix: str) -> str:
    """Return the path of what belongs to a lease."""
    return lease.removesuffix(_SUFFIX) + suffix


def lease_path(directory: str, uuid: UUID) -> str:
    return f"{directory}/{uuid}{_SUFFIX}"


def connect_to(directory: str, uuid: UUID) -> socket.socket:
    """Return a socket that is connected to the process that listens for a domain. Raise OSError if none does."""
    folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        return Endpoint(path=_socket_path(folder, uuid)).connect()
    finally:
        os.close(folder)


def read_machine(directory: str, uuid: UUID) -> bytes:
    """Return what :meth:`HeldLease.keep_machine` has written. Raise OSError if there is nothing."""
    path = _beside(lease_path(directory, uuid), _MACHINE)
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read(_MOST_OF_MACHINE)


def leases(directory: str) -> Iterator[Lease]:
    """Yield the leases whose processes live. Those of others are removed."""
    for path in sorted(Path(directory).glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError):  # of what is no lease, which the others are not to suffer from
            if (lease := read_lease(str(path))) is not None:
                yield lease


def read_lease(path: str) -> Lease | None:
    """Return a lease, or None if there is none, or if its process has ended. It is removed then."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parsed(os.pread(file, _MOST, 0))
    else:
        os.unlink(path)
        for suffix in (_SOCKET, _MACHINE, f"{_MACHINE}.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_beside(path, suffix))
        return None
    finally:
        os.close(file)


class _Fields(msgspec.Struct):
    name: str
    uuid: UUID
    pid: int
    started: int


def _parsed(data: bytes) -> Lease | None:
    try:
        fields = msgspec.json.decode(data, type=_Fields)
    except msgspec.MsgspecError:
        return None
    return Lease(fields.name, fields.uuid, fields.pid, fields.started)


def start_time(pid: int) -> int:
    """Return when a process started, in ticks since the host was switched on. Raise OSError if there is none."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
