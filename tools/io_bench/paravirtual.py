"""The same Linux with devices of three kinds: virtio in QEMU, virtio in dbt, and those of Xen in dbt.

Each engine has one session: a disk, a network card behind ``passt``, and the console hvc0.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dbt_command import DBT

from io_bench.guest import APPEND, MEMORY_MB, Images, Work
from io_bench.sessions import LINK, PASST, QEMU, HostEnds, Session

_DISK_MB, _STREAM_MB, _TEXT_MB, _RANDOM = 128, 64, 2, 5000
_MB: Final = 1 << 20
_FRONT_ENDS: Final = ("xen-blkfront", "xen-netfront")
#: A card of Xen is there when its back end is; that of virtio is there at once.
_BEFORE: Final = (
    "yes all work and no play makes it a dull line | head -c 2097152 > /tmp/text; "
    f"until ip link show eth0; do usleep 100000; done; {LINK}; "
    "until grep -q 1 /sys/class/net/eth0/carrier; do usleep 100000; done"
)


def _parts(disk: str, ends: HostEnds) -> tuple[Work, ...]:
    return (
        Work("read", "disk read", f"dd if={disk} of=/dev/null bs=1M count={_DISK_MB}", _DISK_MB, "MB"),
        Work("write", "disk write", f"dd if=/dev/zero of={disk} bs=1M count={_DISK_MB} conv=fsync", _DISK_MB, "MB"),
        Work("random", "4 KB reads", f"/bench/linux_io read {disk} 4096 {_RANDOM}", _RANDOM, "requests"),
        Work("send", "TCP send", f"/bench/linux_io send 10.0.2.2 {ends.taking_port} {_STREAM_MB * _MB}",
             _STREAM_MB, "MB"),
        Work("receive", "TCP receive", f"/bench/linux_io receive 10.0.2.2 {ends.giving_port}", _STREAM_MB, "MB"),
        Work("console", "console hvc0", "cat /tmp/text > /dev/hvc0", _TEXT_MB, "MB"),
    )  # fmt: skip


def linux_session(engine: str, images: Images, folder: Path, ends: HostEnds) -> Session:
    """Return the session of an engine: "QEMU", "full" or "PV"."""
    is_xen = engine == "PV"
    parts = _parts("/dev/xvda" if is_xen else "/dev/vda", ends)
    disk = images.with_work(parts, folder / f"{engine}.cpio.gz", _BEFORE, _FRONT_ENDS if is_xen else ())
    drive, path = folder / f"{engine}.img", folder / f"{engine}.net"
    drive.write_bytes(os.urandom(_DISK_MB * _MB))
    command = _COMMANDS[engine](images, disk, drive, path)
    folder.chmod(0o777)  # run by root, passt becomes the user nobody, who makes the socket
    return Session("linux", parts, {engine: [[*PASST, "-s", str(path)], command]}, {engine: path})


def _qemu(images: Images, disk: Path, drive: Path, network: Path) -> list[str]:
    return [
        *QEMU, "-kernel", str(images.kernel), "-initrd", str(disk), "-append", APPEND,
        "-chardev", "stdio,id=c,mux=on", "-serial", "chardev:c",
        "-drive", f"file={drive},format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d",
        "-device", "virtio-serial-device,max_ports=2", "-device", "virtconsole,chardev=c",
        "-netdev", f"stream,id=n,server=off,addr.type=unix,addr.path={network}",
        "-device", "virtio-net-device,netdev=n",
    ]  # fmt: skip


def _dbt(images: Images, disk: Path, drive: Path, network: Path, *more: str, append: str = APPEND) -> list[str]:
    return [
        *DBT, "run", *more, "--memory", f"{MEMORY_MB}M", "--kernel", str(images.kernel), "--initrd", str(disk),
        "--append", append, "--drive", f"file={drive}", "--net", f"unix:{network}", "--realtime", "on",
    ]  # fmt: skip


_COMMANDS: Final[dict[str, Callable[[Images, Path, Path, Path], list[str]]]] = {
    "QEMU": _qemu,
    "full": lambda *places: _dbt(*places, "--board", "virt", "--console", "virtio"),
    "PV": lambda *places: _dbt(*places, "--xen", append=APPEND.replace("ttyAMA0", "hvc0")),
}
