"""What a container's VM is made of, and what it says of itself: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dbt.containers.network.interface import Interface
from dbt.containers.runtime.ulimits import Ulimit

#: How many directories and files of the host a container can only read, and how many others, and its network cards.
MOST_DIRECTORIES: Final = 6
MOST_CARDS: Final = 4

#: The size of /dev/shm unless the user wants another one, in bytes.
DEFAULT_SHM: Final = 64 << 20


class RuntimeFailure(Exception):
    """Raised if a VM cannot do what it is asked. The text is a sentence for the user."""


class ProcessFailure(RuntimeFailure):
    """Raised if a program cannot be started: ``exit_code`` is 126 or 127, as a shell has it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class VmEnded(RuntimeFailure):
    """Raised if the VM has ended, or ends before it has answered."""


class VmMoved(RuntimeFailure):
    """Raised for a VM that goes on under another engine."""


class PathFailure(RuntimeFailure):
    """Raised for a path in a container that cannot be read or written. ``error`` is an error number of Linux."""

    def __init__(self, text: str, error: int) -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True)
class Process:
    """A program of a container.

    - ``argv``: the program and its arguments. Without a slash, it is looked for in PATH of ``env``.
    - ``env``: NAME=VALUE each.
    - ``user``: as docker has it: "", "user", "user:group"; names and numbers, looked up in the container's files.
    - ``groups``: further groups, in the same way. An empty one is the user's own.
    - ``tty``: the streams are a terminal of ``rows`` and ``columns``.
    - ``open_stdin``: there is input. Otherwise it is empty.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    rows: int = 24
    columns: int = 80
    open_stdin: bool = False
    privileged: bool = False


@dataclass(frozen=True)
class Mount:
    """A directory or file of the host (``source``) at ``target``."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Tmpfs:
    """A file system in memory at ``target``. ``options`` are those of mount(8), as "size=64m,mode=1777"."""

    target: str
    options: str = ""


@dataclass(frozen=True)
class Limits:
    """What a container may use. None is no limit.

    - ``memory``: bytes, by the guest's memory controller, which ends programs that need more.
    - ``nano_cpus``: billionths of a core, of which a container has one at most.
    - ``cpu_shares``: in proportion to it, the containers share what they all want. 1024 is usual.
    - ``pids``: how many tasks there may be.
    - ``read_bps``, ``write_bps``, ``read_iops``, ``write_iops``: what the container's own disk may do in a second.
    - ``network_bps``: bits in a second that each network card may send and receive.
    """

    memory: int | None = None
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    pids: int | None = None
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None
    network_bps: int | None = None


@dataclass(frozen=True)
class Spec:
    """Everything that a container's VM needs.

    - ``id``: 64 hexadecimal digits. The VM's domain has this name, and its UUID follows from it.
    - ``layers``: the EROFS images of the container's image, the lowest first.
    - ``disk``: the container's own disk, a raw image with ext4 (:func:`dbt.containers.runtime.disk.make_disk`).
    - ``process``: PID 1 of the container, or a child of it with ``init``.
    - ``files``: the content of files that the container finds, by their paths, such as /etc/hosts. It sees later
      changes of their own only.
    - ``interfaces``: what its network cards are. Others are down.
    - ``cap_add``, ``cap_drop``: names of capabilities as NET_ADMIN, or ALL.
    - ``shm_size``: the size of /dev/shm, in bytes.
    - ``sysctls``: values of /proc/sys by name.
    - ``ulimits``: limits of resources, which have been checked.
    - ``oom_score_adj``: how much sooner than others its programs are ended when there is no memory, -1000 to 1000.
    - ``open_system_paths``: it sees and may write what of /proc and /sys is hidden and frozen for others.
    - ``forgotten``: directories of which nothing that the container's programs change stays. They are made.
    - ``no_new_privileges``: no program of it can give another one more rights.
    """

    id: str
    host_name: str
    layers: tuple[str, ...]
    disk: str
    process: Process
    domain_name: str = ""
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    read_only: bool = False
    limits: Limits = Limits()
    interfaces: tuple[Interface, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    init: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    shm_size: int = DEFAULT_SHM
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    open_system_paths: bool = False
    forgotten: tuple[str, ...] = ()
    no_new_privileges: bool = False


def machine_card(card: int) -> int:
    """Return the number of a network card in its machine, of which Linux finds the last one first."""
    return MOST_CARDS - 1 - card


class Ended(NamedTuple):
    """How a container has ended. ``exit_code`` is as docker counts: 128 and the signal's number for a signal.

    ``oom_killed``: it had more memory than it may. ``error``: why its VM ended, if it did not do so by itself.
    """

    exit_code: int
    oom_killed: bool = False
    error: str = ""


class NetStats(NamedTuple):
    """What has gone through a network interface."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class Stats(NamedTuple):
    """What a container uses: CPU times in nanoseconds, memory and disk in bytes, throughputs since the start.

    ``cpu_ns`` is what the VM has taken of the host, ``cpu_user_ns`` and ``cpu_system_ns`` as the guest divides it, and
    ``system_ns`` is what a core of the host had, since some time. ``memory_stat`` is the kernel's memory.stat.
    ``nets`` has the network interfaces by name.
    """

    cpu_ns: int
    cpu_user_ns: int
    cpu_system_ns: int
    system_ns: int
    memory: int
    memory_limit: int
    memory_stat: Mapping[str, int]
    pids: int
    pids_limit: int | None
    block_read: int
    block_written: int
    block_reads: int
    block_writes: int
    nets: Mapping[str, NetStats]


class PathStat(NamedTuple):
    """What is at a path of a container: its base name, size in bytes, mode as of stat(2), time in seconds since 1970,
    and the target of a symbolic link.
    """

    name: str
    size: int
    mode: int
    mtime: int
    link: str
