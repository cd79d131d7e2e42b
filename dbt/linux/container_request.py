"""Requests to the agent that make a container, or enter one (guests/linux/agent/request.h has the items)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntFlag
from typing import Final

from dbt.linux.protocol import Request, encoded_text

_WORD: Final = struct.Struct("<I")


class Namespaces(IntFlag):
    """Kinds of namespaces, as of clone(2)."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    PID = 0x20000000


class MountFlags(IntFlag):
    """Flags of mount(2)."""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEVICES = 4
    NO_EXEC = 8
    REMOUNT = 0x20
    NO_ATIME = 0x400
    BIND = 0x1000
    ALL = 0x4000
    STRICT_ATIME = 1 << 24


class ContainerRequest(Request):
    """What a process of a container does before it executes its program, or a job of the agent."""

    def execute(self, argv: Sequence[str], env: Sequence[str]) -> None:
        """Execute a program, which is looked for in PATH of ``env`` (NAME=VALUE) if it is a name."""
        self._strings += len(argv) + len(env)
        for argument in argv:
            self._add("a", "an argument", encoded_text(argument))
        for variable in env:
            self._add("e", "a variable of the environment", encoded_text(variable))
        self._add("p", argv[0], encoded_text(argv[0]))

    def job(self, letter: str, *arguments: str) -> None:
        """Let the agent do something itself (guests/linux/agent/jobs.h)."""
        self._add("j", f"the job {letter}", *map(encoded_text, (letter, *arguments)))

    def limit_output(self, window: int) -> None:
        """Let only so many bytes of output come before the host gives credit."""
        self._add("w", "the window", _WORD.pack(window))

    def await_disk(self, disk: str, size: int) -> None:
        """Wait until the guest's kernel knows that a disk, whose slot was empty, has so many bytes."""
        self._add("B", f"the disk {disk} of {size} bytes", size.to_bytes(8, "little"), encoded_text(disk))

    def add_partition(self, disk: str, first: int, size: int, number: int) -> None:
        """Make a part of a disk a disk, whose path has ``number`` behind it."""
        value = struct.pack("<QQI", first, size, number)
        self._add("P", f"part {number} of {disk}", value, encoded_text(disk))

    def unshare(self, kinds: Namespaces) -> None:
        """Be in new namespaces, but for that of PIDs, in which a process is after :meth:`fork`."""
        self._add("n", "namespaces", _WORD.pack(kinds))

    def enter(self, pid: int, kinds: Namespaces) -> None:
        """Be in the namespaces of a process."""
        self._add("N", f"the namespaces of process {pid}", _WORD.pack(pid), _WORD.pack(kinds))

    def fork(self) -> None:
        """Go on in another process."""
        self._add("F", "a process")

    def pivot(self, root: str) -> None:
        """Take another root. Relative paths begin at the old one until :meth:`detach`."""
        self._add("v", f"the root {root}", encoded_text(root))

    def detach(self) -> None:
        """Give up the old root."""
        self._add("V", "the old root")

    def make_node(self, path: str, mode: int, major: int, minor: int) -> None:
        """Make a device file. ``mode`` has its kind."""
        device = (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
        self._add("x", path, _WORD.pack(mode), _WORD.pack(device), encoded_text(path))

    def show_terminal(self, path: str) -> None:
        """Let the session's terminal, if it has one, be seen at a path, too."""
        self._add("T", path, encoded_text(path))

    def hide(self, path: str) -> None:
        """Let a path look empty."""
        self._add("M", path, encoded_text(path))

    def freeze(self, path: str) -> None:
        """Let a path be only read."""
        self._add("R", path, encoded_text(path))

    def bound_capabilities(self, kept: int) -> None:
        """Keep only these capabilities, a set of bits, whatever is executed."""
        self._add("C", "capabilities", kept.to_bytes(8, "little"))

    def limit_resource(self, name: str, resource: int, soft: int, hard: int) -> None:
        """Limit what this process and its children may have of a resource of setrlimit(2). -1 is no limit."""
        values = (one & 0xFFFFFFFF_FFFFFFFF for one in (soft, hard))
        self._add("L", f"the limit {name}", struct.pack("<IQQ", resource, *values))

    def give_no_privileges(self) -> None:
        """Let no program that is executed give more rights, by set-user-ID for one (PR_SET_NO_NEW_PRIVS)."""
        self._add("Q", "no new privileges")

    def become_user(self, user: str, groups: Sequence[str] = ()) -> None:
        """Become a user of the root directory's files: "user:group", and more groups."""
        self._add("U", f"user {user}" if user else "user root", *map(encoded_text, (user, *groups)))

    def allow_devices(self) -> None:
        """Let the container use every device, and not only those of docker's list."""
        self._add("D", "all devices")

    def bind(self, source: str, target: str) -> None:
        """Let what is at ``source`` be seen at ``target``, which becomes a file if there is nothing."""
        self._add("b", target, encoded_text(source), encoded_text(target))

    def set_interface(self, card: int, address: bytes, mask: bytes, gateway: bytes, mtu: int, mac: bytes) -> None:
        """Give a network card its addresses: four bytes each, the gateway's zero if it is none. Without an address it
        is down, and keeps its hardware address if ``mac`` is zero.
        """
        value = _WORD.pack(card) + address + mask + gateway + _WORD.pack(mtu) + mac
        self._add("I", f"the network card eth{card}", value)

    def stay_as_init(self) -> None:
        """Let the program be a child, which gets the signals that PID 1 gets, and bury orphans."""
        self._add("i", "PID 1")
