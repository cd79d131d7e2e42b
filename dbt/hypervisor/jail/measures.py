"""The measures of a jail: what each is, whether the host gives it, and taking them all."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from dbt.hypervisor.jail import filter, landlock
from dbt.hypervisor.jail.landlock import Folder
from dbt.hypervisor.jail.own_root import leave_host_tree
from dbt.hypervisor.jail.system_calls import BASE, FILES, SOCKETS, SystemCall

_NEW_CGROUP, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_NET = (1 << bit for bit in (25, 26, 27, 28, 30))
_SET_NO_NEW_PRIVILEGES, _SET_DUMPABLE = 38, 4
_CAPABILITIES: Final = 0x20080522
#: How many descriptors a process may open more than it has, and bytes that a file of it may grow to.
_MORE_FILES: Final = 256


class Strictness(Enum):
    """What becomes of a process if the host does not give all measures."""

    #: There is no jail.
    OFF = "off"
    #: What the host gives is taken, and what it does not give is said.
    ON = "on"
    #: There is no machine then.
    STRICT = "strict"


class JailIncomplete(OSError):
    """Raised if a jail has to be strict, and the host does not give all measures. The text names them."""


class Policy(NamedTuple):
    """What a jailed process may do: its system calls, and the folders whose files it may open."""

    system_calls: Mapping[str, SystemCall] = MappingProxyType(BASE)
    folders: Sequence[Folder] = ()


def machine_policy(folders: Sequence[Folder], has_files: bool, has_sockets: bool) -> Policy:
    """Return the policy of a machine's process. ``has_files``: the guest may open files of the host by their names.
    ``has_sockets``: it may connect to sockets by theirs.
    """
    return Policy({**BASE, **(FILES if has_files else {}), **(SOCKETS if has_sockets else {})}, folders)


class Measure(NamedTuple):
    """A measure: its name, taking it, and what a process can do that somebody has taken over, without it."""

    name: str
    take: Callable[[Policy], None]
    without: str


def _limit_resources(policy: Policy) -> None:
    """No processes, no dumps of memory, and few more files."""
    files = max(int(name) for name in os.listdir("/proc/self/fd")) + _MORE_FILES
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _leave_namespaces(policy: Policy) -> None:
    """Have a user, a network, IPC and a host name of its own. Nothing is in them but what was there before."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_CGROUP):
        error = ctypes.get_errno()
        raise OSError(error, f"namespaces: {os.strerror(error)}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _leave_host_tree(policy: Policy) -> None:
    """Have mounts of its own, of the folders alone."""
    leave_host_tree(policy.folders)


def give_up_privileges(policy: Policy) -> None:
    """Have no capabilities, get none by a program, and let no other process look into this one. Raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    if (
        libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        or libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
        or libc.capset(header, (ctypes.c_uint32 * 6)())
    ):
        error = ctypes.get_errno()
        raise OSError(error, f"privileges: {os.strerror(error)}")


def _restrict_files(policy: Policy) -> None:
    landlock.restrict(policy.folders)


def _filter_calls(policy: Policy) -> None:
    filter.install(policy.system_calls.values())


#: The measures, in the order in which they have to be taken.
MEASURES: Final = (
    Measure("resource limits", _limit_resources, "a machine's process can use up open files and write core dumps"),
    Measure("namespaces", _leave_namespaces, "the other measures alone keep it from the host's network"),
    Measure(
        "own root", _leave_host_tree, "it sees names, sizes and times of all files, and connects to sockets at paths"
    ),
    Measure("no privileges", give_up_privileges, "others of this user look into it, and it keeps what root may do"),
    Measure("Landlock", _restrict_files, "it can read the files that this user can read"),
    Measure("seccomp filter", _filter_calls, "it can make all system calls, and attack the host's kernel by them"),
)


def enter(policy: Policy) -> dict[str, str]:
    """Take all measures that the host gives, in this process and for ever. Return those that it does not give, each
    with the reason.
    """
    missing: dict[str, str] = {}
    for measure in MEASURES:
        try:
            measure.take(policy)
        except OSError as error:
            missing[measure.name] = error.strerror or str(error)
    return missing


def try_measures() -> dict[str, str]:
    """Return the measures that this host does not give, each with the reason. They are tried in a forked process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            missing = enter(Policy())
            os.write(write, "\n".join(f"{name}\t{why}" for name, why in missing.items()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return dict(line.split("\t", 1) for line in text.splitlines())


def require(strictness: Strictness, missing: Mapping[str, str]) -> None:
    """Raise JailIncomplete if something is missing, and nothing may be."""
    if strictness is Strictness.STRICT and missing:
        what = ", ".join(f"{name} ({why})" for name, why in missing.items())
        raise JailIncomplete(
            f"the jail is not complete, because the host does not give {what}: use --jail on, "
            "or off. dbt doctor says what follows"
        )
