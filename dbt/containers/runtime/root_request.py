"""What a container's first process does before it executes its program: its root directory, devices and rights.

First come the file systems, which the agent sees too, at :data:`ROOT` and beside it: archives are made there. Then come
the namespaces. In them the container's root is the root directory, so that a link of the image's leads to nothing else;
what is mounted from the guest has relative paths, which begin at the old root.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from dbt.containers.network.interface import Interface
from dbt.containers.runtime.capabilities import capability_bits
from dbt.containers.runtime.spec import MOST_DIRECTORIES, Limits, Process, ProcessFailure, RuntimeFailure, Spec, Tmpfs
from dbt.containers.runtime.ulimits import RESOURCES
from dbt.host.ninep.shared_file import NAME
from dbt.linux.container_request import ContainerRequest, MountFlags, Namespaces
from dbt.linux.template import container_tag

#: Directories of the guest: the container's root, its own disk with the upper directory, the lowest common one.
ROOT, DISK, UPPER = "/container/root", "/container/disk", "/container/disk/upper"
_WORK, _LAYERS, _INIT, _FILES = "/container/disk/work", "/l", "/l/0", "container/files"
CGROUP: Final = "/sys/fs/cgroup/container"
#: Where the file systems are, below the old root, that have one file.
_SINGLE_FILES: Final = "container/single"
#: Where that is on the container's disk, below the old root, which nobody keeps.
_FORGOTTEN: Final = "container/disk/forgotten"
_LAYER_DISK, _OWN_DISK = "/dev/vda", "/dev/vdb"
_SECTOR: Final = 512
_9P: Final = "trans=virtio,version=9p2000.L,msize=262144,access=any,cache=mmap"
_ENTROPY: Final = 64
_F = MountFlags
_PLAIN: Final = _F.NO_SUID | _F.NO_DEVICES | _F.NO_EXEC
ALL_NAMESPACES: Final = Namespaces.MOUNT | Namespaces.CGROUP | Namespaces.UTS | Namespaces.IPC | Namespaces.PID
_CHARACTER_DEVICE: Final = 0o20666
_DEVICES: Final = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS: Final = (
    *(("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout")),
    *(("/proc/self/fd/2", "stderr"), ("/proc/kcore", "core"), ("pts/ptmx", "ptmx")),
)
#: What a container does not see, and what it only reads: docker's lists.
_HIDDEN: Final = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_FROZEN: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_CARD_DRIVER: Final = "/sys/bus/virtio/drivers/virtio_net"
#: The number of eth0 among the guest's virtio devices.
_FIRST_CARD: Final = 14
#: The cards that the guest sees when it has booted (guests/linux/agent/network.c).
_SHOWN: Final = frozenset({0})
#: Files and directories that every container finds if its image has not got them, as docker's.
INIT_FILES: Final = ("/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_INIT_FOLDERS: Final = ("/dev/pts", "/dev/shm", "/etc", "/proc", "/sys")
#: As docker has it: any user may use ping, and listen at any port.
_SYSCTLS: Final = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
#: Linux has no more tasks (PID_MAX_LIMIT), and takes no higher limit of them.
_MOST_PIDS: Final = 1 << 22
#: What options of a tmpfs are flags of mount(2), and not the file system's own.
_TMPFS_FLAGS: Final = {
    **{"ro": (_F.READ_ONLY, True), "rw": (_F.READ_ONLY, False), "nosuid": (_F.NO_SUID, True)},
    **{"suid": (_F.NO_SUID, False), "nodev": (_F.NO_DEVICES, True), "dev": (_F.NO_DEVICES, False)},
    **{"noexec": (_F.NO_EXEC, True), "exec": (_F.NO_EXEC, False), "noatime": (_F.NO_ATIME, True)},
    **{
        "atime": (_F.NO_ATIME, False),
        "strictatime": (_F.STRICT_ATIME, True),
        "nostrictatime": (_F.STRICT_ATIME, False),
    },
}
#: Options that docker takes, and that make no difference in memory that one container has.
_TMPFS_PLAIN: Final = frozenset(
    {"defaults", "sync", "async", "dirsync", "mand", "nomand", "diratime", "nodiratime", "relatime", "norelatime"}
    | {f"{prefix}{kind}" for prefix in ("", "r") for kind in ("private", "shared", "slave", "unbindable")}
)
#: Options with values.
_TMPFS_VALUES: Final = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})
#: The greatest number of a user or a group, as docker has it.
_MOST_ID: Final = (1 << 31) - 1
_MOST_DIGITS: Final = 40
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")


def main_request(spec: Spec) -> ContainerRequest:
    """Return the request of the container's own program. Raise RuntimeFailure for what cannot be done."""
    request = _begun_request(spec)
    if spec.init:
        request.stay_as_init()
    _execute(request, spec, spec.process)
    return request


def model_request(spec: Spec) -> ContainerRequest:
    """Return the request that does all that a container's own program waits for, and starts no program."""
    request = _begun_request(spec)
    request.job("c")
    return request


def _begun_request(spec: Spec) -> ContainerRequest:
    """Return a request that does what comes before a container's own program."""
    request = ContainerRequest()
    process = spec.process
    if process.tty:
        request.use_terminal(process.rows, process.columns)
    _mount_files(request, spec)
    _limit(request, spec.limits)
    _show_cards(request, {one.card for one in spec.interfaces}, _SHOWN, _SHOWN)
    _set_interfaces(request, spec.interfaces)
    if spec.privileged:
        request.allow_devices()
    for number in range(len(spec.forgotten)):
        for part in ("upper", "work"):
            request.make_directory(f"/{_FORGOTTEN}/{number}/{part}")
    request.write_file(f"{CGROUP}/cgroup.procs", b"0")
    request.unshare(ALL_NAMESPACES)
    request.fork()
    request.set_host_name(spec.host_name)
    request.pivot(ROOT)
    _mount_system(request, spec)
    _mount_forgotten(request, spec.forgotten)
    _mount_users(request, spec)
    request.detach()
    for name, value in (_SYSCTLS | dict(spec.sysctls)).items():
        request.write_file("/proc/sys/" + name.replace(".", "/"), value.encode())
    if spec.domain_name:
        request.write_file("/proc/sys/kernel/domainname", spec.domain_name.encode())
    if not (spec.privileged or spec.open_system_paths):
        for path in _FROZEN:
            request.freeze(path)
        for path in _HIDDEN:
            request.hide(path)
    request.make_directory(process.cwd or "/")
    if spec.read_only:
        request.mount("", "", "/", _F.REMOUNT | _F.BIND | _F.READ_ONLY)
    return request


def stopped_request(spec: Spec) -> ContainerRequest:
    """Return the request that mounts the files of a container and starts no program."""
    request = ContainerRequest()
    _mount_files(request, spec)
    request.job("c")
    return request


def exec_request(spec: Spec, process: Process, pid: int) -> ContainerRequest:
    """Return the request of another program in the container, whose own program is the process ``pid``."""
    request = ContainerRequest()
    if process.tty:
        request.use_terminal(process.rows, process.columns)
    request.write_file(f"{CGROUP}/cgroup.procs", b"0")
    request.enter(pid, ALL_NAMESPACES)
    request.fork()
    _execute(request, spec, process)
    return request


def _execute(request: ContainerRequest, spec: Spec, process: Process) -> None:
    if not process.argv:
        raise RuntimeFailure("no command specified")
    privileged = spec.privileged or process.privileged
    if spec.oom_score_adj:
        request.write_file("/proc/self/oom_score_adj", str(spec.oom_score_adj).encode())
    for one in spec.ulimits:
        request.limit_resource(one.name, RESOURCES[one.name], one.soft, one.hard)
    if spec.no_new_privileges:
        request.give_no_privileges()
    request.bound_capabilities(capability_bits(spec.cap_add, spec.cap_drop, privileged))
    if process.cwd and not process.cwd.startswith("/"):
        raise ProcessFailure("Cwd must be an absolute path", 126)
    request.change_directory(process.cwd or "/")
    _check_ids((*process.user.split(":"), *process.groups))
    request.become_user(process.user, process.groups)
    request.set_mask(0o022)
    request.execute(process.argv, process.env)


def _check_ids(names: Iterable[str]) -> None:
    """Raise ProcessFailure for numbers that no user and no group can have."""
    if any(_NUMBER.fullmatch(name) and not 0 <= int(name[:_MOST_DIGITS]) <= _MOST_ID for name in names):
        raise ProcessFailure(f"uids and gids must be in range 0-{_MOST_ID}", 126)


def interfaces_request(
    interfaces: Sequence[Interface], shown: Collection[int], down: Collection[int] = ()
) -> ContainerRequest:
    """Return the request that gives network cards their addresses, and hides those that are ``down``. Until then, the
    guest sees the cards ``shown``.
    """
    request = ContainerRequest()
    _show_cards(request, {one.card for one in interfaces}, frozenset(shown), frozenset(down))
    _set_interfaces(request, interfaces)
    request.job("c")
    return request


def _show_cards(request: ContainerRequest, wanted: set[int], shown: frozenset[int], down: frozenset[int]) -> None:
    """Let the guest see the cards ``wanted``. It shall not go on to see cards of ``shown`` that are ``down``."""
    # The kernel gives a card the first name that is free, so those before it have to be there for a moment.
    added = {card for card in range(max(wanted - shown, default=-1) + 1) if card not in shown}
    _tell_driver(request, "bind", added)
    _tell_driver(request, "unbind", (added | shown & down) - wanted)


def _tell_driver(request: ContainerRequest, what: str, cards: Collection[int]) -> None:
    """Let the kernel's driver of network cards have some (``bind``) or give some up, after which nobody sees them."""
    for card in sorted(cards):
        request.write_file(f"{_CARD_DRIVER}/{what}", b"virtio%d" % (_FIRST_CARD + card))


def _set_interfaces(request: ContainerRequest, interfaces: Sequence[Interface]) -> None:
    for one in interfaces:
        gateway = bytes(4) if one.gateway is None else one.gateway.packed
        mask = one.subnet.netmask.packed
        request.set_interface(one.card, one.address.packed, mask, gateway, one.mtu, one.mac)


# -- file systems ----------------------------------------------------------------------------------


def _mount_files(request: ContainerRequest, spec: Spec) -> None:
    """Mount the layers, the container's disk, and the overlay of them."""
    _renew(request)
    for folder in _INIT_FOLDERS:
        request.make_directory(_INIT + folder)
    for file in INIT_FILES:
        request.write_file(_INIT + file, b"", 0o755)
    sizes = [os.stat(layer).st_size for layer in spec.layers]
    if sizes:
        request.await_disk(_LAYER_DISK, sum(sizes))
    request.await_disk(_OWN_DISK, os.stat(spec.disk).st_size)
    first, lower = 0, list[str]()
    for number, size in enumerate(sizes, 1):
        request.add_partition(_LAYER_DISK, first, size, number)
        request.make_directory(f"{_LAYERS}/{number}")
        request.mount("erofs", f"{_LAYER_DISK}{number}", f"{_LAYERS}/{number}", _F.READ_ONLY)
        lower.insert(0, f"{_LAYERS}/{number}")
        first += size
    request.make_directory(DISK)
    request.mount("ext4", _OWN_DISK, DISK, _F.NO_ATIME, "noblock_validity,no_prefetch_block_bitmaps,barrier=0")
    # The host has to write everything down when a program says so, and not because of the mount.
    request.mount("", "", DISK, _F.NO_ATIME | _F.REMOUNT, "barrier=1")
    # Otherwise the first block that is allocated has the kernel look at all groups of a flexible one.
    request.write_file(f"/sys/fs/ext4/{posixpath.basename(_OWN_DISK)}/mb_prefetch", b"0")
    for folder in (UPPER, _WORK, ROOT):
        request.make_directory(folder)
    options = f"lowerdir={':'.join([*lower, _INIT])},upperdir={UPPER},workdir={_WORK}"
    request.mount("overlay", "overlay", ROOT, 0, options)
    request.make_directory(f"/{_FILES}")
    for number, content in enumerate(spec.files.values()):
        request.write_file(f"/{_FILES}/{number}", content)


def _renew(request: ContainerRequest) -> None:
    request.set_time(int(time.time()))
    request.add_entropy(secrets.token_bytes(_ENTROPY))


def lower_view(request: ContainerRequest, spec: Spec, path: str) -> None:
    """Mount what is below the container's own files, in a namespace of this process."""
    request.unshare(Namespaces.MOUNT)
    request.make_directory(path)
    lower = [*(f"{_LAYERS}/{number}" for number in range(len(spec.layers), 0, -1)), _INIT]
    lower.append("/container/files") if len(lower) == 1 else None  # an overlay has two directories at least
    request.mount("overlay", "overlay", path, _F.READ_ONLY, f"lowerdir={':'.join(lower)}")


def _mount_system(request: ContainerRequest, spec: Spec) -> None:
    """Mount what each container has: /proc, /dev, /sys and what is in them."""
    frozen = _F.NONE if spec.privileged else _F.READ_ONLY
    request.mount("proc", "proc", "/proc", _PLAIN)
    request.mount("tmpfs", "tmpfs", "/dev", _F.NO_SUID | _F.STRICT_ATIME, "mode=755,size=65536k")
    for name, major, minor in _DEVICES:
        request.make_node(f"/dev/{name}", _CHARACTER_DEVICE, major, minor)
    for target, name in _LINKS:
        request.link(target, f"/dev/{name}")
    for folder in ("/dev/pts", "/dev/shm", "/dev/mqueue"):
        request.make_directory(folder)
    request.mount("", "dev/pts", "/dev/pts", _F.BIND)
    request.mount("tmpfs", "shm", "/dev/shm", _PLAIN, f"mode=1777,size={spec.shm_size}")
    request.mount("mqueue", "mqueue", "/dev/mqueue", _PLAIN)
    request.show_terminal("/dev/console")
    request.mount("sysfs", "sysfs", "/sys", _PLAIN | frozen)
    request.mount("cgroup2", "cgroup", "/sys/fs/cgroup", _PLAIN | frozen)


def _mount_forgotten(request: ContainerRequest, paths: Sequence[str]) -> None:
    """Let changes below some paths go elsewhere: what is there is seen through one more overlay."""
    outer = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    for path in sorted(paths):
        request.make_directory(path)
        if path not in outer:
            continue  # Linux has no third overlay above another
        number = outer.index(path)
        lower = path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
        place = f"{_FORGOTTEN}/{number}"
        request.mount("overlay", "overlay", path, 0, f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work")


def _mount_users(request: ContainerRequest, spec: Spec) -> None:
    """Mount what the user of a container has chosen: directories of the host, memory, files."""
    counts = {True: 0, False: 0}
    targets = sorted(
        [(mount.target, mount) for mount in spec.mounts] + [(mount.target, mount) for mount in spec.tmpfs],
        key=lambda one: one[0].count("/"),
    )
    for target, mount in targets:
        if isinstance(mount, Tmpfs):
            request.make_directory(target)
            flags, options = _tmpfs_options(mount.options)
            request.mount("tmpfs", "tmpfs", target, flags, options)
            continue
        number = counts[mount.read_only]
        counts[mount.read_only] += 1
        tag, flags = container_tag(number, mount.read_only), _F.READ_ONLY if mount.read_only else _F.NONE
        place = target if os.path.isdir(mount.source) else f"{_SINGLE_FILES}/{tag}"
        request.make_directory(place)
        request.mount("9p", tag, place, flags, _9P)
        if place != target:
            request.bind(f"{place}/{NAME.decode()}", target)
    for number, path in enumerate(spec.files):
        request.bind(f"{_FILES}/{number}", path)


def directories(spec: Spec) -> dict[str, str]:
    """Return what of the host each tag is that a container mounts. Raise RuntimeFailure for too many."""
    found: dict[str, str] = {}
    for read_only in (True, False):
        chosen = [mount.source for mount in spec.mounts if mount.read_only == read_only]
        if len(chosen) > MOST_DIRECTORIES:
            kind = "that it can only read" if read_only else "that it can write"
            raise RuntimeFailure(f"a container has at most {MOST_DIRECTORIES} directories of the host {kind}")
        found |= {container_tag(number, read_only): os.path.realpath(source) for number, source in enumerate(chosen)}
    return found


def _tmpfs_options(text: str) -> tuple[MountFlags, str]:
    flags, rest = _PLAIN, []
    for option in filter(None, text.split(",")):
        if option in _TMPFS_FLAGS:
            flag, is_set = _TMPFS_FLAGS[option]
            flags = flags | flag if is_set else flags & ~flag
        elif option.partition("=")[0] in _TMPFS_VALUES and "=" in option:
            rest.append(option)
        elif option not in _TMPFS_PLAIN:
            raise RuntimeFailure(f"invalid tmpfs option [{json.dumps(option, ensure_ascii=False)}]")
    return flags, ",".join(rest)


# -- limits ----------------------------------------------------------------------------------------


def _limit(request: ContainerRequest, limits: Limits) -> None:
    pids = None if limits.pids is None or limits.pids > _MOST_PIDS else limits.pids
    for name, value in (("memory.max", limits.memory), ("pids.max", pids)):
        request.write_file(f"{CGROUP}/{name}", b"max" if value is None else str(value).encode())


def limits_request(limits: Limits) -> ContainerRequest:
    """Return the request that gives the container other limits."""
    request = ContainerRequest()
    _limit(request, limits)
    request.job("c")
    return request


def freezer_request(is_frozen: bool) -> ContainerRequest:
    """Return the request that lets the container's programs stand still, or go on."""
    request = ContainerRequest()
    request.write_file(f"{CGROUP}/cgroup.freeze", b"1" if is_frozen else b"0")
    request.job("c")
    return request


def renewed_request() -> ContainerRequest:
    """Return the request that gives a guest the time of day and other random numbers."""
    request = ContainerRequest()
    _renew(request)
    request.job("c")
    return request


def found_file(spec: Spec, path: str) -> str:
    """Return where one of the files that the container finds (:attr:`Spec.files`) is in the guest."""
    return f"/{_FILES}/{list(spec.files).index(path)}"


def written_files_request(files: Mapping[str, bytes]) -> ContainerRequest:
    """Return the request that writes files of the guest, by their paths there, again."""
    request = ContainerRequest()
    for path, content in files.items():
        request.write_file(path, content)
    request.job("c")
    return request


def files_request(pid: int | None) -> ContainerRequest:
    """Return a request that is in the container's root directory. ``pid`` is its program, if it has one: then it also
    sees what is mounted there.
    """
    request = ContainerRequest()
    if pid is None:
        request.change_root(ROOT)
    else:
        request.enter(pid, Namespaces.MOUNT)
    return request


def check_texts(texts: Sequence[str]) -> None:
    """Raise RuntimeFailure for texts that no program can be given."""
    for text in texts:
        try:
            encoded = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise RuntimeFailure(f"the text {text!r:.80} is no text that a program can be given") from None
        if b"\0" in encoded:
            raise RuntimeFailure(f"the text {text!r:.80} has a zero character, and no program can be given that")
