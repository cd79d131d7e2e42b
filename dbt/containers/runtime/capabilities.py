"""Capabilities of Linux, by name, and which of them a container has (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dbt.containers.runtime.spec import RuntimeFailure

_NAMES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
#: Those that docker leaves to a container if nothing else is said.
DEFAULT: Final = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"}
    | {"NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"}
)
_ALL: Final = frozenset(_NAMES)


def capability_bits(add: Iterable[str], drop: Iterable[str], privileged: bool = False) -> int:
    """Return the set of the capabilities that a container has: bit N stands for capability N.

    ``add`` and ``drop`` are names, as docker has them: with or without CAP_, and ALL. Raise RuntimeFailure for others.
    """
    if privileged:
        kept = _ALL
    else:
        added, dropped = _named(add), _named(drop)
        # What is named itself counts more than what ALL stands for, as docker has it.
        every = "ALL" in {name.upper() for name in add}
        none = "ALL" in {name.upper() for name in drop}
        kept = (_ALL - dropped if every else (frozenset() if none else DEFAULT - dropped)) | (
            frozenset() if every else added
        )
    return sum(1 << _NAMES.index(name) for name in kept)


def _named(names: Iterable[str]) -> frozenset[str]:
    found = {one.removeprefix("CAP_") for one in map(str.upper, names) if one != "ALL"}
    if unknown := found - _ALL:
        raise RuntimeFailure(f'unknown capability: "CAP_{min(unknown)}"')
    return frozenset(found)
