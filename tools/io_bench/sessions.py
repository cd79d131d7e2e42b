"""What is measured inside Linux: the sessions, the parts of each, and the commands that run it in each engine."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dbt_command import DBT

from io_bench.guest import APPEND, MEMORY_MB, UP, Images, Work

_TOOLS = Path(__file__).resolve().parents[1]
QEMU: Final = (
    *("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off"),
    *("-global", "virtio-mmio.force-legacy=false", "-m", str(MEMORY_MB), "-display", "none", "-monitor", "none"),
    "-no-reboot",
)
DISK_MB, SHARED_MB, SMALL_FILES, RANDOM, STREAM_MB = 192, 64, 1000, 10_000, 64
_MB: Final = 1 << 20
_PORT: Final = 5000
_MOUNT: Final = "mount -t 9p -o trans=virtio,version=9p2000.L share /share"
_TEXT: Final = "yes all work and no play makes it a dull line | head -c 1048576 > /tmp/text"

_ACCESS: Final = "/bench/linux_io"
_DISK: Final = (
    Work("read", "disk, read in sequence (dd)", f"dd if=/dev/vda of=/dev/null bs=1M count={DISK_MB}", DISK_MB, "MB"),
    Work(
        "write", "disk, write in sequence (dd, fsync)",
        f"dd if=/dev/zero of=/dev/vda bs=1M count={DISK_MB // 2} conv=fsync", DISK_MB / 2, "MB",
    ),
    Work("random-read", "disk, 4 KB at random, read", f"{_ACCESS} read /dev/vda 4096 {RANDOM}", RANDOM, "requests"),
    Work("random-write", "disk, 4 KB at random, write", f"{_ACCESS} write /dev/vda 4096 {RANDOM}", RANDOM, "requests"),
    Work("9p", "9p, read one file (dd)", "dd if=/share/big of=/dev/null bs=1M", SHARED_MB, "MB"),
    Work("9p-files", "9p, read small files (cat)", "cat /share/small/* > /dev/null", SMALL_FILES, "files"),
    Work("uart", "console, PL011 by the driver", "cat /tmp/text > /dev/ttyAMA0", 1, "MB"),
    Work("virtio-console", "console, virtio (hvc0)", "cat /tmp/text > /dev/hvc0", 1, "MB"),
)  # fmt: skip


def _stream(address: str) -> str:
    return f"/bench/linux_io send {address} {_PORT} {STREAM_MB * _MB}"


_HUB: Final = (Work("hub", "network, TCP stream through a hub", _stream("10.0.0.1"), STREAM_MB, "MB"),)


@dataclass(frozen=True)
class Session:
    """A boot that does some parts of the work, one after the other.

    ``commands`` has the commands of QEMU and of dbt. The last of them is the guest that does the work. If an engine is
    in ``sockets``, the command before makes that socket, and the last one needs it.
    """

    name: str
    parts: Sequence[Work]
    commands: dict[str, list[list[str]]]
    sockets: Mapping[str, Path] = field(default_factory=dict)

    @property
    def expected(self) -> list[bytes]:
        """The lines that the guest prints, in order."""
        return [UP, *(line for work in self.parts for line in (work.begin, work.end))]


def _qemu(images: Images, disk: Path, *more: str) -> list[str]:
    return [*QEMU, "-kernel", str(images.kernel), "-initrd", str(disk), "-append", APPEND, *more]


def _dbt(images: Images, disk: Path, *more: str) -> list[str]:
    kernel = ("--kernel", str(images.kernel), "--initrd", str(disk), "--append", APPEND)
    return [*DBT, "run", "--board", "virt", "--memory", f"{MEMORY_MB}M", *kernel, *more]


def boot_session(images: Images, folder: Path) -> Session:
    disk = images.with_work((), folder / "boot.cpio.gz")
    commands = {"QEMU": [_qemu(images, disk, "-serial", "stdio", "-nic", "none")], "dbt": [_dbt(images, disk)]}
    return Session("boot", (), commands)


def disk_session(images: Images, folder: Path) -> Session:
    """Disk, shared directory and consoles. The files are random bytes, so that nothing can be saved on them."""
    disk = images.with_work(_DISK, folder / "disk.cpio.gz", f"{_MOUNT}; {_TEXT}")
    drive, shared = folder / "drive.img", folder / "shared"
    (shared / "small").mkdir(parents=True)
    drive.write_bytes(os.urandom(DISK_MB * _MB))
    (shared / "big").write_bytes(os.urandom(SHARED_MB * _MB))
    for number in range(SMALL_FILES):
        (shared / "small" / str(number)).write_text(f"file {number}\n")
    qemu = _qemu(
        images, disk, "-chardev", "stdio,id=c,mux=on", "-serial", "chardev:c", "-nic", "none",
        "-drive", f"file={drive},format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d",
        "-device", "virtio-serial-device,max_ports=2", "-device", "virtconsole,chardev=c",
        "-fsdev", f"local,id=f,path={shared},security_model=none",
        "-device", "virtio-9p-device,fsdev=f,mount_tag=share",
    )  # fmt: skip
    dbt = _dbt(images, disk, "--drive", f"file={drive}", "--share", str(shared), "--console", "virtio")
    return Session("disk", _DISK, {"QEMU": [qemu], "dbt": [dbt]})


def hub_session(images: Images, folder: Path) -> Session:
    """Two guests: the first takes a stream, the second sends it, once the first answers."""
    serving = images.with_work(
        (), folder / "serving.cpio.gz",
        f"ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; /bench/linux_io serve {_PORT}",
    )  # fmt: skip
    sending = images.with_work(
        _HUB, folder / "sending.cpio.gz",
        "ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; until ping -c 1 -W 1 10.0.0.1; do :; done; sleep 2",
    )  # fmt: skip
    wire = folder / "wire"
    qemu = [
        _qemu(images, image, "-serial", "stdio", "-netdev", f"stream,id=n,{end},addr.type=unix,addr.path={wire}",
              "-device", f"virtio-net-device,netdev=n,mac=52:54:00:00:00:0{number}")
        for number, (image, end) in enumerate(((serving, "server=on"), (sending, "server=off")))
    ]  # fmt: skip
    dbt = [sys.executable, str(_TOOLS / "two_machines.py"), *map(str, (images.kernel, serving, sending))]
    return Session("hub", _HUB, {"QEMU": qemu, "dbt": [dbt]}, {"QEMU": wire})


# -- through passt ---------------------------------------------------------------------------------

#: The addresses that QEMU's users know: the guest is 10.0.2.15, and the host 10.0.2.2.
PASST: Final = ("passt", "--foreground", "--quiet", "--one-off", "-4", "-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2")
LINK: Final = "ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up"


def passt_session(images: Images, folder: Path) -> Session:
    """A stream from the guest to a server on the host, and one back. Each engine has a ``passt`` at a socket."""
    ends = HostEnds()
    parts = (
        Work("passt-send", "network, TCP stream to the host (passt)",
             f"/bench/linux_io send 10.0.2.2 {ends.taking_port} {STREAM_MB * _MB}", STREAM_MB, "MB"),
        Work("passt-receive", "network, TCP stream from the host (passt)",
             f"/bench/linux_io receive 10.0.2.2 {ends.giving_port}", STREAM_MB, "MB"),
    )  # fmt: skip
    disk = images.with_work(parts, folder / "passt.cpio.gz", LINK)
    folder.chmod(0o777)  # run by root, passt becomes the user nobody, who makes the socket
    path = folder / "net"
    qemu = _qemu(
        images, disk, "-serial", "stdio", "-netdev", f"stream,id=n,server=off,addr.type=unix,addr.path={path}",
        "-device", "virtio-net-device,netdev=n",
    )  # fmt: skip
    dbt = _dbt(images, disk, "--net", f"unix:{path}", "--realtime", "on")
    passt = [*PASST, "-s", str(path)]
    return Session("passt", parts, {"QEMU": [passt, qemu], "dbt": [passt, dbt]}, {"QEMU": path, "dbt": path})


class HostEnds:
    """Servers on the host's loopback: one takes what comes, the other gives so many bytes to each who connects."""

    def __init__(self) -> None:
        self.taking_port = self._serve(self._take)
        self.giving_port = self._serve(self._give)

    @staticmethod
    def _serve(answer: Callable[[socket.socket], None]) -> int:
        listening = socket.create_server(("127.0.0.1", 0))

        def loop() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    answer(connection)

        threading.Thread(target=loop, daemon=True).start()
        port: int = listening.getsockname()[1]
        return port

    @staticmethod
    def _take(connection: socket.socket) -> None:
        while connection.recv(_MB):
            pass

    @staticmethod
    def _give(connection: socket.socket) -> None:
        with suppress(OSError):  # The guest has gone.
            for _ in range(STREAM_MB):
                connection.sendall(bytes(_MB))
