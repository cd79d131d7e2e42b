"""A Debian kernel whose guest uses a device of each kind at the same time: disk, network, random numbers, balloon,
console, shared directory and sockets. A session with it is recorded, with programs of the host at the other ends.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path

from dbt import Machine
from dbt.host.drive import Drive
from dbt.host.net_option import Net
from dbt.host.ninep.share import Share
from dbt.host.vsock_option import Vsock
from dbt.vm.input import Arrival
from dbt.vm.options import HostOptions
from dbt.vm.recording import Recorder, RunIdentity, identify
from dbt.vm.result import RunResult, StopReason
from tests.host.reflector import Reflector
from tests.linux.debian import DISK, KERNEL, TIMEOUT
from tests.linux.initramfs import extended
from tests.linux.vsock_host import GUEST, Caller, Host

_CID = 3
_ON_DISK, _SHARED = random.Random(1).randbytes(300_000), b"shared" * 5000
TYPED = random.Random(2).randbytes(2000)
_PINGS, _PIECES = 60, 12
#: Linux calls less than all of the memory its own.
_MEMORY, _GIVEN = 256 << 20, 96 << 20
_MODULES = (
    *("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console", "virtio-rng"),
    *("virtio_balloon", "netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "crc16", "crc32c_generic", "mbcache"),
    *("jbd2", "ext4", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"),
)
#: Each kind of work is one process, and says in one line what came of it.
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in {" ".join(_MODULES)}; do insmod "/lib/modules/$m.ko"; done
ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
mkdir /mnt /share
mount -t ext4 /dev/vda /mnt && mount -t 9p -o trans=virtio,version=9p2000.L share /share || poweroff -f
disk() {{
  for i in $(seq {_PIECES}); do
    cp /mnt/file /mnt/copy$i; sync; echo 1 > /proc/sys/vm/drop_caches; md5sum < /mnt/copy$i; rm /mnt/copy$i
  done | sort | uniq -c | tr '\\n' ' '
}}
share() {{
  for i in $(seq {_PIECES}); do
    cp /share/file /share/copy$i; ls /share | wc -l; md5sum < /share/copy$i; rm /share/copy$i
  done | sort | uniq -c | tr '\\n' ' '
}}
numbers() {{ for i in $(seq {_PIECES}); do head -c 5000 /dev/hwrng; done | wc -c; }}
console() {{
  exec 3<>/dev/hvc0
  stty raw -echo <&3
  echo "type""now" >&3
  head -c {len(TYPED)} <&3 | md5sum
  for i in $(seq {_PIECES}); do head -c 1000 /dev/zero | tr '\\0' x >&3; done
}}
balloon() {{
  echo "askfor""memory" > /dev/console
  until [ $(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) -lt {_MEMORY - _GIVEN >> 10} ]; do
    usleep 20000
  done
  echo given
}}
network() {{ ping -A -s 8000 -c {_PINGS} 10.0.2.2 | grep received; }}
echo "=== WORK ==="
for work in disk share numbers console balloon network; do
  (result=$($work); echo "$work: $result") &
done
/vsock_guest &
wait
echo "=== BUSY DONE ==="
poweroff -f
"""
_APPEND = "console=ttyAMA0 quiet panic=-1 rdinit=/init-busy"


class Partner(Caller):
    """The console, at which somebody types, connects to the guest's sockets, and asks for memory, when it is time."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.machine: Machine | None = None
        self._is_typed = self._is_asked = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self._is_typed and b"typenow" in self.output:
            self._is_typed, self.input = True, TYPED
        if not self._is_asked and b"askformemory" in self.output and self.machine is not None:
            self._is_asked = True
            self.machine.ask_for_memory(_GIVEN)

    def go_on_from(self, other: Partner) -> None:
        """Know what has been said and done at another console, whose guest goes on here too."""
        self.output += other.output
        self.input = other.input
        self._is_typed, self._is_asked = other._is_typed, other._is_asked


class NotingRecorder(Recorder):
    """A recorder that also notes at which icounts something has come from outside."""

    def __init__(self, machine: Machine, path: Path) -> None:
        super().__init__(machine.input_source, str(path), identify(machine, ""))
        self._machine = machine
        self.icounts: list[int] = []

    def arrivals(self, now: int) -> Sequence[Arrival]:
        found = super().arrivals(now)
        if found:
            self.icounts.append(self._machine.icount)
        return found


@dataclass
class Ends:
    """The host's ends of a machine, in a folder: a network, sockets and a shared directory. The disk is ``disk``."""

    folder: Path
    disk: Path
    host: Host = field(init=False)
    console: Partner = field(init=False)
    network: Reflector = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.host = Host(self.folder / "vsock")
        self.console = Partner(self.host)
        self.network = Reflector(self.folder / "net")
        share = self.folder / "share"
        share.mkdir()
        (share / "file").write_bytes(_SHARED)

    @property
    def options(self) -> HostOptions:
        return {
            "console": self.console,
            "drives": [Drive(str(self.disk), snapshot=True)],
            "nets": [Net(f"unix:{self.folder / 'net'}")],
            "shares": [Share(str(self.folder / "share"))],
            "vsock": Vsock(_CID, f"unix:{self.folder / 'vsock'}"),
        }


@dataclass
class Session:
    """A recorded session: its file, whose run it is, where something arrived, where the work began and where the
    machine switched itself off, and what was said.
    """

    run: Path
    disk: Path
    initramfs: Path
    identity: RunIdentity
    arrived: list[int]
    work: int
    end: int
    output: bytes

    @property
    def nobody(self) -> HostOptions:
        """The options of a machine that replays it: there is nothing outside but the disk."""
        return {
            "drives": [Drive(str(self.disk), snapshot=True)],
            "nets": [Net("none")],
            "shares": [Share(None)],
            "vsock": Vsock(_CID, "none"),
        }


def boot(initramfs: Path, options: HostOptions) -> Machine:
    machine = Machine(_MEMORY, cpu="cortex-a15", devices=["rng", "balloon", "console"], **options)
    machine.load_kernel(KERNEL, initrd=initramfs, append=_APPEND)
    return machine


def make_disk(folder: Path) -> Path:
    """An ext4 with a file."""
    path, root = folder / "disk", folder / "root"
    root.mkdir()
    (root / "file").write_bytes(_ON_DISK)
    subprocess.run(("mke2fs", "-q", "-t", "ext4", "-d", root, path, "16M"), check=True)
    return path


def make_initramfs(folder: Path) -> Path:
    return extended(DISK, folder, {"vsock_guest": GUEST, "init-busy": _INIT})


def check_work(output: bytes | bytearray, is_fork: bool = False) -> None:
    """Assert that the guest has said of each kind of work that it is done, and well.

    A fork in the middle of it loses the connection that it has. Where the host is busy, pings are repeated.
    """
    text = re.sub(r"x{9,}|\r|(?<= ) +", "", output.decode(errors="replace"))
    for line in (
        f"disk: {_PIECES} {md5(_ON_DISK).hexdigest()} -",
        f"share: {_PIECES} 2 {_PIECES} {md5(_SHARED).hexdigest()} -",
        f"numbers: {5000 * _PIECES}\n",
        f"console: {md5(TYPED).hexdigest()} -",
        "balloon: given\n",
        f", {_PINGS} packets received, ",
        "echo 52: sender " if is_fork else "echo 52: sender 0, got 1048576, right 1048576, end",
        *(f"served {port}: cid 2, got 200000, end" for port in (1234, 1235)),
        "=== BUSY DONE ===",
    ):
        assert line in text, (line, text)
    assert "SO_VM_SOCKETS" not in text


def run_until(machine: Machine, console: Partner, text: bytes) -> None:
    while text not in console.output:
        result = machine.run(fuel=1_000_000, timeout=TIMEOUT)
        assert result.reason is StopReason.FUEL, (result.message, bytes(console.output[-2000:]))


def run_to_end(machine: Machine, console: Partner) -> RunResult:
    result = machine.run(timeout=TIMEOUT)
    assert result.reason is StopReason.EXITED, (result.message, bytes(console.output[-3000:]))
    return result


def make_session(folder: Path) -> Session:
    """Boot the guest with everything, and record it to its end."""
    disk, initramfs = make_disk(folder), make_initramfs(folder)
    ends = Ends(folder / "ends", disk)
    with boot(initramfs, {**ends.options, "realtime": True}) as machine:
        ends.console.machine = machine
        recorder = NotingRecorder(machine, folder / "run")
        identity = identify(machine, "")
        machine.attach_input(recorder)
        run_until(machine, ends.console, b"=== WORK ===")
        work = machine.icount
        result = run_to_end(machine, ends.console)
        recorder.end(machine, result)
    ends.host.join()
    return Session(
        folder / "run", disk, initramfs, identity, recorder.icounts, work, result.icount, bytes(ends.console.output)
    )
