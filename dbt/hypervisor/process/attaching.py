"""Finding the process of a machine whose host is gone."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.channel import Channel, ChannelEnded
from dbt.hypervisor.process.lease import connect_to, lease_path, leases, read_lease, read_machine, start_time

_CREDENTIALS: Final = struct.Struct("3i")


#: How long a process that is told to end may take, in seconds.
_END_S: Final = 5.0


class Found(NamedTuple):
    """A process: its PID, a descriptor of it (pidfd_open(2)), and the channel to it."""

    pid: int
    pidfd: int
    channel: Channel[say.FromVm]


def connect(directory: str, uuid: UUID) -> Found | None:
    """Return the process that has the lease of a domain, or None if there is none.

    Raise VmLost if who answers is not the process that the lease names.
    """
    lease = read_lease(lease_path(directory, uuid))
    if lease is None or lease.uuid != uuid:
        return None
    pidfd = os.pidfd_open(lease.pid)  # the process that has this number now, which is looked at next
    try:
        if start_time(lease.pid) != lease.started:
            raise VmLost(f"process {lease.pid} is not the one that has the machine of the domain {lease.name}")
        connection = connect_to(directory, uuid)
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if (pid, uid) != (lease.pid, os.geteuid()):
            connection.close()
            raise VmLost(f"process {pid} of user {uid} answers for the domain {lease.name}, and not {lease.pid}")
    except BaseException:
        os.close(pidfd)
        raise
    return Found(lease.pid, pidfd, Channel(connection, say.FromVm))


def machine_of(directory: str, uuid: UUID) -> say.Booted | None:
    """Return what the machine of a domain was when its guest had executed nothing, or None if there is none."""
    try:
        return msgspec.msgpack.decode(read_machine(directory, uuid), type=say.Booted)
    except (OSError, msgspec.MsgspecError):
        return None


def end_others(directory: str, kept: Collection[UUID]) -> list[str]:
    """End the processes with leases of other domains than those that are ``kept``, whose host is gone for good. Return
    the names of their domains.
    """
    ended = []
    for lease in leases(directory):
        if lease.uuid in kept:
            continue
        try:
            found = connect(directory, lease.uuid)
        except (VmLost, OSError):
            continue  # it is ending, or it is not the process that it seems to be
        if found is None:
            continue
        with suppress(ChannelEnded):
            found.channel.send(say.End())
        if not select.select([found.pidfd], [], [], _END_S)[0]:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(found.pidfd, signal.SIGKILL)
        found.channel.close()
        os.close(found.pidfd)
        ended.append(lease.name)
    return ended
