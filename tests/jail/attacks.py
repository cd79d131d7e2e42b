"""What a guest could try that has taken over its process: Python that runs in its place and says what it reaches."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dbt import Machine
from dbt.host.console import Console
from dbt.host.ninep.share import Share
from dbt.host.vsock_option import Vsock
from tests.assembler import assemble

_SEAL_FUTURE_WRITE = 16
_F_SETOWN_EX = 15
#: Where the RAM of the board is, and a guest that writes to a register of a virtio slot.
_BASE = 0x40000000
_GUEST = "ldr r9, =0x0a003c00\n1: str r0, [r9, #0x14]\n b 1b"
_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> None:
    """Make a system call by its number, and raise OSError if it fails."""
    if _libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _open_descriptors() -> list[str]:
    """Return what is open besides sockets, pipes, events and files in memory."""
    found = []
    for number in range(1024):
        try:
            status = os.fstat(number)
        except OSError:
            continue
        is_memory = stat.S_ISREG(status.st_mode) and not status.st_nlink
        is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
        if not (is_memory or is_null or stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
            found.append(f"{number}: {stat.filemode(status.st_mode)}")
    return found


def _shared_memory() -> list[int]:
    """Return the files in memory that this process can change, or sees others change: by what is open, and by how its
    memory is mapped, which is the file with the access of all files of /proc/PID.
    """
    found = set[int]()
    for number in range(1024):
        try:
            status = os.fstat(number)
            flags = fcntl.fcntl(number, fcntl.F_GETFL)
        except OSError:
            continue
        if stat.S_IMODE(status.st_mode) == 0o444:
            with open(os.dup(number), "rb") as file:
                file.seek(0)
                lines = [line.split() for line in file.read().decode().splitlines()]
            found |= {int(line[4]) for line in lines if line[1].endswith("s") and "/memfd:" in line[5]}
        elif stat.S_ISREG(status.st_mode) and not status.st_nlink and flags & os.O_ACCMODE != os.O_RDONLY:
            seals = fcntl.fcntl(number, fcntl.F_GET_SEALS)
            if not seals & (fcntl.F_SEAL_WRITE | _SEAL_FUTURE_WRITE) or not seals & fcntl.F_SEAL_SHRINK:
                found.add(status.st_ino)
    return sorted(found)


def _make_executable() -> None:
    page = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _call(10, ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_EXEC)


def _climb(path: str) -> None:
    """Look at a file of the host from each directory that is open. Raise OSError if none leads there."""
    for number in _directories():
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat("../" * 40 + path.lstrip("/"), dir_fd=number)
            return
    raise OSError(errno.ENOENT, "no directory leads there")


def _connect(path: str) -> None:
    """Connect to a socket of the host, by its path or from a directory that is open. Raise OSError if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        for number in _directories():
            with suppress(OSError):
                connection.connect(f"/proc/self/fd/{number}/{'../' * 12}{path.lstrip('/')}")
                return
        connection.connect(path)


def _directories() -> list[int]:
    found = []
    for number in range(1024):
        with suppress(OSError):
            if stat.S_ISDIR(os.fstat(number).st_mode):
                found.append(number)
    return found


def _file_that_signals(command: int, value: int | bytes) -> None:
    """Let a pipe signal another process when something comes."""
    fcntl.fcntl(os.pipe()[0], command, value)


@dataclass(frozen=True)
class Attacks:
    """Boots a machine whose device accesses make the attacks. ``victim`` is a process outside, ``path`` a file, and
    ``listener`` the path of a socket. With ``own`` the guest has of that directory of the host ``files`` and ``share``,
    and a socket device in ``sockets``.
    """

    victim: int
    path: str
    cache: str
    listener: str = ""
    own: str = ""

    def __call__(self, console: Console) -> Machine:
        machine = self._machine(console)
        done: list[bool] = []

        def attack(gpa: int, size: int, value: int) -> None:
            if not done:
                done.append(True)
                for name, attempt in self.attempts().items():
                    console.write(f"{name}: {_outcome(attempt)}\n".encode())
                console.write(f"shared: {_shared_memory()}\n".encode())
                console.write(f"open: {_open_descriptors()}\nover\n".encode())

        machine.memory.bus.write = attack  # type: ignore[method-assign]
        return machine

    def _machine(self, console: Console) -> Machine:
        machine = Machine(
            1 << 20,
            "threaded",
            console=console,
            cpu="cortex-a15",
            files=f"{self.own}/files" if self.own else None,
            shares=[Share(f"{self.own}/share")] if self.own else (),
            vsock=Vsock(3, f"unix:{self.own}/sockets/guest") if self.own else None,
        )
        machine.load_bytes(assemble(_GUEST, _BASE), base=_BASE, entry=_BASE)
        return machine

    def attempts(self) -> dict[str, Callable[[], object]]:
        """Return what is tried, by its name. Each raises OSError if it fails."""
        victim = self.victim
        return {
            "read a file": lambda: open(self.path, "rb"),
            "write a file": lambda: open(self.path, "ab"),
            "create a file": lambda: os.open(f"{self.path}.new", os.O_CREAT | os.O_WRONLY),
            "remove a file": lambda: os.unlink(self.path),
            "rename a file": lambda: os.rename(self.path, f"{self.path}.other"),
            "create in the cache": lambda: os.open(f"{self.cache}/attack", os.O_CREAT | os.O_WRONLY),
            "list the root": lambda: os.listdir("/"),
            "look at a file": lambda: os.stat(self.path),
            "look at a system's file": lambda: os.stat("/etc/passwd"),
            "look at a process": lambda: os.stat(f"/proc/{victim}"),
            "path of a file": lambda: os.open(self.path, os.O_PATH),
            "above a directory": lambda: _climb(self.path),
            "listener": lambda: _connect(self.listener),
            "memory of another process": lambda: open(f"/proc/{victim}/mem", "rb"),
            "read its memory": lambda: _call(310, victim, None, 0, None, 0, 0),
            "own memory": lambda: open("/proc/self/mem", "rb"),
            "hypervisor's sockets": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
            "internet": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            "raw network": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            "unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
            "socketpair": socket.socketpair,
            "signal": lambda: os.kill(victim, 0),
            "signal all": lambda: os.kill(-1, signal.SIGUSR1),
            "signal the parent": lambda: os.kill(os.getppid(), 0),
            "signal a thread": lambda: _call(234, victim, victim, 0),
            "queue a signal": lambda: _call(129, victim, 0, None),
            "handle of a process": lambda: os.pidfd_open(victim),
            "signal by a file": lambda: _file_that_signals(fcntl.F_SETOWN, victim),
            "signal by a file, as a structure": lambda: _file_that_signals(_F_SETOWN_EX, struct.pack("2i", 1, victim)),
            "which signal of a file": lambda: _file_that_signals(fcntl.F_SETSIG, signal.SIGKILL),
            "fork": os.fork,
            "clone": lambda: _call(56, 0, None, None, None, 0),
            "clone3": lambda: _call(435, None, 0),
            "program": lambda: os.execv("/bin/true", ["true"]),
            "program of a file": lambda: _call(322, os.memfd_create("x"), b"", None, None, 0x1000),
            "ptrace": lambda: _call(101, 16, victim, None, None),
            "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
            "memory made executable": _make_executable,
            "user": lambda: os.setuid(1),
            "namespaces": lambda: _call(272, 1 << 28),
            "namespace of another process": lambda: _call(308, 0, 0),
            "mount": lambda: _call(165, b"none", b"/", b"tmpfs", 0, None),
            "root": lambda: os.chroot("/"),
            "limits of others": lambda: _call(302, victim, 7, None, None),
            "keys": lambda: _call(250, 0, 0),
            "io_uring": lambda: _call(425, 1, None),
            "bpf": lambda: _call(321, 0, None, 0),
            "shared memory": lambda: _call(29, 1, 4096, 0o1600),
            "another filter": lambda: _call(317, 1, 0, None),
            "time": lambda: _call(227, 0, None),
            "reboot": lambda: _call(169, 0xFEE1DEAD, 672274793, 0, None),
            "priority of others": lambda: os.setpriority(os.PRIO_PROCESS, victim, 0),
        }


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        found = attempt()
    except OSError as error:
        return f"refused ({error.strerror})"
    return f"REACHED {found!r}"
