"""The system calls that a jailed process may make, each with its reason.

All others fail with EPERM. What a call may reach is limited besides: by the files that are open, by Landlock, and by
namespaces.
"""

from __future__ import annotations

import fcntl
import mmap
import socket
from typing import Final, NamedTuple


class Only(NamedTuple):
    """Which value an argument of a system call may have: one of some ``values``, or any ``without`` some bits. They are
    counted from 0 on.
    """

    argument: int
    values: tuple[int, ...] = ()
    without: int = 0


class SystemCall(NamedTuple):
    """A system call of x86-64: its number, why it is allowed, and with which arguments if not with any."""

    number: int
    reason: str
    only: Only | None = None


#: Not among them are those by which a file signals another process when something comes: F_SETOWN, F_SETSIG, F_NOTIFY.
_FILE_COMMANDS: Final = (
    fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_OFD_GETLK,
    fcntl.F_OFD_SETLK, fcntl.F_SETPIPE_SZ, fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS,
)  # fmt: skip

#: What every machine needs.
BASE: Final[dict[str, SystemCall]] = {
    "read": SystemCall(0, "messages of pipes, and files of the cache directory"),
    "write": SystemCall(1, "messages to the compiler, notices, and values of a state in a memory file"),
    "close": SystemCall(3, "descriptors that are not needed any more"),
    "fstat": SystemCall(5, "the size of a file that is open"),
    "poll": SystemCall(7, "waiting for the host and for the network"),
    "lseek": SystemCall(8, "finding the parts of a memory file that are not zero"),
    "mmap": SystemCall(9, "memory, never to be executed", Only(2, without=mmap.PROT_EXEC)),
    "mprotect": SystemCall(10, "memory, never to be executed", Only(2, without=mmap.PROT_EXEC)),
    "munmap": SystemCall(11, "giving memory back"),
    "brk": SystemCall(12, "the heap of the C library"),
    "rt_sigaction": SystemCall(13, "handlers of signals, which wait during a run"),
    "rt_sigprocmask": SystemCall(14, "signals that wait during a run"),
    "rt_sigreturn": SystemCall(15, "the end of a handler"),
    "pread64": SystemCall(17, "disks, and pages of RAM in a memory file"),
    "pwrite64": SystemCall(18, "disks, and pages of RAM in a memory file"),
    "readv": SystemCall(19, "frames of a tap interface"),
    "madvise": SystemCall(28, "memory that the guest gives back"),
    "getpid": SystemCall(39, "telling a process from one that was forked from it"),
    "sendto": SystemCall(44, "messages to the host, and frames to a network"),
    "recvfrom": SystemCall(45, "frames from a network"),
    "sendmsg": SystemCall(46, "messages with files: the state, and the pipes of a compiler"),
    "recvmsg": SystemCall(47, "messages of the host"),
    "exit": SystemCall(60, "the end of a thread"),
    "fcntl": SystemCall(
        72, "pipes that do not wait, seals of memory files, and locks of disks", Only(1, values=_FILE_COMMANDS)
    ),
    "fdatasync": SystemCall(75, "what a guest has flushed to its disk"),
    "ftruncate": SystemCall(77, "the size of memory files and disks"),
    "geteuid": SystemCall(107, "whether a file of the cache directory, or who connects, is this user's"),
    "sigaltstack": SystemCall(131, "handlers of signals"),
    "restart_syscall": SystemCall(219, "a wait that goes on after the process was stopped, or the host was asleep"),
    "futex": SystemCall(202, "locks between threads, of Python and the C library"),
    "clock_gettime": SystemCall(228, "time, where the kernel does not map it"),
    "clock_nanosleep": SystemCall(230, "a moment for other threads"),
    "exit_group": SystemCall(231, "the end of the process"),
    "newfstatat": SystemCall(262, "what a file is, before it is opened"),
    "fallocate": SystemCall(285, "blocks that the guest discards"),
    "accept4": SystemCall(288, "the next host after this one, and a connection for the socket device"),
    "eventfd2": SystemCall(290, "hearing of a frame at a hub"),
    "pipe2": SystemCall(293, "the pipes of a compiler"),
    "getsockopt": SystemCall(55, "who has connected"),
    "getrandom": SystemCall(318, "the order of dictionaries"),
    "memfd_create": SystemCall(319, "the state, which is a file in memory"),
    "openat": SystemCall(257, "compiled regions of the cache directory, which can be read alone"),
}
#: What the socket device needs besides.
SOCKETS: Final[dict[str, SystemCall]] = {
    "socket": SystemCall(41, "the socket of a connection to a program of the host", Only(0, values=(socket.AF_UNIX,))),
    "connect": SystemCall(42, "a connection of the guest to a program of the host"),
}
#: What a shared directory and files of semihosting need besides. Landlock says beneath which directories.
FILES: Final[dict[str, SystemCall]] = {
    "getdents64": SystemCall(217, "the entries of a shared directory"),
    "mkdirat": SystemCall(258, "a directory in a shared one"),
    "unlinkat": SystemCall(263, "removing a shared file"),
    "renameat": SystemCall(264, "renaming a shared file"),
    "readlinkat": SystemCall(267, "a link in a shared directory"),
    "fsync": SystemCall(74, "what a guest has flushed to a shared directory"),
    "truncate": SystemCall(76, "the size of a shared file"),
    "chmod": SystemCall(90, "the permissions of a shared file that is open as a path"),
    "fchmod": SystemCall(91, "the permissions of a new file in a shared directory"),
    "fstatfs": SystemCall(138, "the room in a shared directory"),
    "linkat": SystemCall(265, "one more name of a shared file"),
    "symlinkat": SystemCall(266, "a new link in a shared directory"),
    "utimensat": SystemCall(280, "the times of a shared file"),
}
#: What a compiler needs, which has two pipes and no files.
COMPILER: Final[dict[str, SystemCall]] = {
    **{
        name: BASE[name]
        for name in (
            "read", "write", "close", "fstat", "lseek", "mmap", "mprotect", "munmap", "brk", "rt_sigaction",
            "rt_sigprocmask", "rt_sigreturn", "madvise", "getpid", "exit", "sigaltstack", "futex", "clock_gettime",
            "exit_group", "getrandom",
        )
    },
    "mremap": SystemCall(25, "growing the memory of LLVM"),
    "setitimer": SystemCall(38, "the end of a compilation that takes too long"),
    "gettid": SystemCall(186, "locks of LLVM"),
    "uname": SystemCall(63, "the host, of which LLVM asks"),
}  # fmt: skip
#: Nobody may have more, and a machine with shared directories not more than this.
MOST: Final = 50
MOST_WITH_FILES: Final = 60
