"""Debian's unmodified kernel as a domain of Xen with devices: its front ends and the back ends work together."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt import Drive, Machine
from dbt.host.ninep.share import Share
from dbt.hypervisor.xen.back_ends import block
from dbt.hypervisor.xen.back_ends.back_end import Phase
from dbt.hypervisor.xen.back_ends.block import BlockBackEnd
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.linux.debian import TIMEOUT
from tests.linux.domu import NEEDS_DOMU, boot
from tests.linux.typist import Typist, typed

pytestmark = NEEDS_DOMU
_ARGUMENTS = "console=hvc0 panic=-1 rdinit=/init-xen quiet"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with an ext4."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("e2fsprogs is not installed")
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, timeout=60)
    return path


def run_until(machine: Machine, is_true: Callable[[], bool]) -> None:
    for _ in range(400):
        if is_true():
            return
        assert machine.run(fuel=20_000_000, timeout=TIMEOUT).reason is StopReason.FUEL
    raise AssertionError("it does not come to that")


def test_a_file_system_on_xvda(disk: Path) -> None:
    """What is written by many at once is there again; the driver goes and comes; the file system is clean."""
    writes = " & ".join(f"dd if=/dev/urandom of=/mnt/f{number} bs=64k count=16" for number in range(4))
    commands = [
        "mount /dev/xvda /mnt",
        f"{writes} & wait",
        "md5sum /mnt/f* > /tmp/sums; sync; umount /mnt; blkdiscard /dev/xvda -o 8388608 -l 1048576; rmmod xen_blkfront",
        "insmod /lib/modules/xen-blkfront.ko; sleep 1; mount /dev/xvda /mnt; md5sum -c /tmp/sums; fstrim /mnt",
        "umount /mnt; cat /sys/block/xvda/size /sys/block/xvda/queue/max_segments; poweroff -f",
    ]
    console = Typist(typed(commands))
    with boot("auto-async", console, _ARGUMENTS, drives=(Drive(str(disk)),)) as machine:
        result = machine.run(timeout=TIMEOUT)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
        hypervisor = machine.board.hypervisor
        assert hypervisor is not None
        counts = hypervisor.back_ends[0].counts
    output = console.output.decode().replace("\r", "")
    assert "persistent grants: enabled; indirect descriptors: enabled" in output or "xvda 32768 sectors" in output
    assert re.findall(r"/mnt/f\d: (\w+)", output) == ["OK"] * 4, output[-2000:]
    assert re.search(r"^32768$", output, re.MULTILINE)
    assert counts.requests > counts.batches >= counts.notifications > 0
    checked = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout


def test_a_state_with_a_disk(disk: Path) -> None:
    """Saved while it writes, and restored in another tier: both come to the same state, as does a fork."""
    console = Typist(
        typed(["mount /dev/xvda /mnt", "while true; do dd if=/dev/urandom of=/mnt/f bs=64k count=4; done"])
    )
    drives = (Drive(str(disk), snapshot=True),)
    with boot("auto-async", console, _ARGUMENTS, drives=drives) as machine:
        run_until(machine, lambda: console.ended and b"records out" in console.output)
        hypervisor = machine.board.hypervisor
        assert hypervisor is not None and hypervisor.back_ends[0].phase == Phase.CONNECTED
        machine.run(fuel=7_654_321)
        with machine.save() as state, machine.fork() as child:
            ends = []
            with Machine.restore(state, tier="threaded", drives=drives) as again:
                for one in (machine, child, again):
                    assert one.run(fuel=20_000_000, timeout=TIMEOUT).reason is StopReason.FUEL
                    ends.append(state_hash(one))
    assert len(set(ends)) == 1


def test_a_shared_directory(tmp_path: Path) -> None:
    """Files are read and written by several at once, and a restored machine has them open."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "hello").write_text("hello from the host\n")
    commands = [
        "mount -t 9p -o trans=xen,version=9p2000.L data /share; cat /share/hello",
        "dd if=/dev/urandom of=/share/big bs=64k count=16; md5sum /share/big > /share/sums",
        "for i in 1 2 3; do md5sum -c /share/sums & done; wait; exec 3< /share/hello; echo re''ady",
    ]
    console = Typist(typed(commands))
    shares = (Share(str(folder), "data"),)
    with boot("auto-async", console, f"{_ARGUMENTS} nowait", shares=shares) as machine:
        run_until(machine, lambda: b"ready" in console.output)
        with machine.save() as state:
            more = Typist([(b"", b"cat <&3; umount /share; poweroff -f\n")])
            with Machine.restore(state, tier="threaded", console=more, shares=shares) as again:
                assert again.run(timeout=TIMEOUT).reason is StopReason.EXITED
    output = console.output.decode().replace("\r", "")
    assert "\nhello from the host\n" in output and output.count("/share/big: OK") == 3, output[-2000:]
    assert b"hello from the host" in more.output
    digest, _ = (folder / "sums").read_text().split()
    assert hashlib.md5((folder / "big").read_bytes()).hexdigest() == digest


def test_a_full_ring_is_one_batch_with_one_event(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux writes 8 MiB in requests of 4 KiB to a disk that is so slow that it fills the ring of 32 requests. For each
    batch it is sent one event, and it sends one for the first request alone.
    """
    sizes: list[int] = []
    looks = 0
    proceed, receive_event = BlockBackEnd.proceed, BlockBackEnd._receive_event

    def proceed_counted(self: BlockBackEnd) -> None:
        sizes.append(len(self.batch))
        proceed(self)

    def receive_counted(self: BlockBackEnd) -> None:
        nonlocal looks
        looks += 1
        receive_event(self)

    monkeypatch.setattr(BlockBackEnd, "proceed", proceed_counted)
    monkeypatch.setattr(BlockBackEnd, "_receive_event", receive_counted)
    monkeypatch.setattr(block, "LATENCY_NS", 20_000_000)
    commands = [
        "echo 4 > /sys/block/xvda/queue/max_sectors_kb",
        "dd if=/dev/zero of=/dev/xvda bs=1M count=8 conv=fsync; poweroff -f",
    ]
    console = Typist(typed(commands))
    with boot("auto-async", console, _ARGUMENTS, drives=(Drive(str(disk)),)) as machine:
        assert machine.run(timeout=TIMEOUT).reason is StopReason.EXITED, console.output[-2000:]
        assert machine.board.hypervisor is not None
        (counts,) = (one.counts for one in machine.board.hypervisor.back_ends)
    assert disk.read_bytes()[: 8 << 20] == bytes(8 << 20)
    assert counts.requests == sum(sizes) > 2048 and counts.batches == len(sizes)
    assert sum(size for size in sizes if size >= 31) > 1024, "one is served, and the others wait"
    assert counts.notifications <= counts.batches
    assert looks <= counts.batches
