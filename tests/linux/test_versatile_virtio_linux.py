"""Linux' virtio drivers on the board versatile: a kernel that has them finds the devices by the board's own tree.

DBT_LINUX_IMAGES has ``zImage-virtio`` besides the RAM disk of ``make linux``; docs/linux.md says how it is built.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.host.drive import Drive
from dbt.host.ninep.share import Share
from dbt.host.vsock_option import Vsock
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from tests.linux.booting import IMAGES, MODES, NEEDS_LINUX, TIMEOUT
from tests.linux.initramfs import extended

KERNEL = IMAGES / "zImage-virtio"
pytestmark = [
    NEEDS_LINUX,
    pytest.mark.skipif(not KERNEL.is_file(), reason="no zImage-virtio in DBT_LINUX_IMAGES (docs/linux.md)"),
]
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
md5sum </dev/vda; md5sum </dev/vdb
cat /sys/class/misc/hw_random/rng_current
mkdir /share; mount -t 9p -o trans=virtio,version=9p2000.L share /share; cat /share/hello
[ -c /dev/vsock ] && echo vsock
cat /proc/interrupts
reboot -f
"""


def test_every_device_works(tmp_path: Path) -> None:
    """Seven devices share four interrupts. What was recorded is the same in another tier, without the directory."""
    extended(IMAGES / "initramfs-armel.cpio.gz", tmp_path, {"init-v": _INIT})
    contents = [bytes([number]) * 65536 for number in (1, 2)]
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "hello").write_text("hello from the host\n")
    for number, data in enumerate(contents):
        (tmp_path / f"disk{number}").write_bytes(data)
    run = str(tmp_path / "run")
    with made(tmp_path, "threaded", Share(str(tmp_path / "share"))) as machine:
        recorder = Recorder(machine.input_source, run, identify(machine, ""))
        machine.attach_input(recorder)
        result = machine.run(timeout=TIMEOUT)
        recorder.end(machine, result)
        assert isinstance(machine.console, CaptureConsole)
        output = machine.console.output.decode(errors="replace").replace("\r", "")
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), output
    for data in contents:
        assert hashlib.md5(data).hexdigest() in output
    assert "virtio_rng.0\nhello from the host\nvsock\n" in output
    assert re.search(r" 30 Edge +virtio(0, virtio4|4, virtio0)\n", output), output
    with made(tmp_path, "auto-async", Share(None)) as machine:
        replay = Replay(read_recording(run), identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None), timeout=TIMEOUT), pytest.fail)


def made(folder: Path, mode: str, share: Share) -> Machine:
    """A machine with seven devices, which is about to boot."""
    tier, jit = MODES[mode]
    machine = Machine(
        tier=tier,
        jit=jit,
        console=CaptureConsole(),
        drives=[Drive(str(folder / f"disk{number}"), snapshot=True) for number in range(2)],
        devices=["rng", "balloon", "console"],
        shares=[share],
        vsock=Vsock(3, "none"),
    )
    append = "console=ttyAMA0 panic=-1 rdinit=/init-v"
    machine.load_kernel(KERNEL, initrd=folder / "initramfs", append=append)
    return machine
