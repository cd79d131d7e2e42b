"""Linux' own driver for socket devices, on Debian's kernel: programs of guest and host connect to each other.

It wants what test_virt_linux.py wants, with the modules vsock, vmw_vsock_virtio_transport_common and
vmw_vsock_virtio_transport among those of the initramfs, and a compiler that makes the guest's program.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole, Console
from dbt.host.vsock_option import Vsock
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from tests.linux.booting import MODES
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT
from tests.linux.initramfs import extended
from tests.linux.vsock_host import GUEST, Caller, Host

pytestmark = NEEDS_DEBIAN
_MODULES = ("virtio_mmio", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport")
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in {" ".join(_MODULES)}; do insmod /lib/modules/$m.ko; done
/vsock_guest $vsock
poweroff -f
"""
_CID = 42


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's initramfs with the program, and an /init-vsock that runs it."""
    folder = tmp_path_factory.mktemp("initramfs")
    return extended(DISK, folder, {"vsock_guest": GUEST, "init-vsock": _INIT})


def boot(initramfs: Path, mode: str, console: Console, end: str, append: str = "", **more: Any) -> Machine:
    tier, jit = MODES[mode]
    machine = Machine(256 << 20, tier=tier, jit=jit, console=console, cpu="cortex-a15", vsock=Vsock(_CID, end), **more)
    machine.load_kernel(KERNEL, initrd=initramfs, append=f"console=ttyAMA0 quiet panic=-1 rdinit=/init-vsock {append}")
    return machine


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    yield Host(tmp_path / "vsock")


def test_guest_and_host_connect_to_each_other(tmp_path: Path, initramfs: Path, host: Host) -> None:
    """The run is recorded, and is the same without the host."""
    console = Caller(host)
    with boot(initramfs, "auto-async", console, f"unix:{tmp_path / 'vsock'}", realtime=True) as machine:
        recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, ""))
        machine.attach_input(recorder)
        result = machine.run(timeout=TIMEOUT)
        recorder.end(machine, result)
    output = console.output.decode(errors="replace").replace("\r", "")
    assert result.reason is StopReason.EXITED, output[-3000:]
    host.join()
    assert f"cid {_CID}\n" in output
    assert "echo 52: sender 0, got 1048576, right 1048576, end\n" in output
    assert "connect 53: Connection reset by peer\n" in output
    for number, port in enumerate((1234, 1235)):
        assert f"served {port}: cid 2, got 200000, end\n" in output
        line, _, data = host.got[number].partition(b"\n")
        assert line == b"OK %d" % ((1 << 30) + number) and data == b"%d " % port * 40_000
    assert "=== VSOCK DONE ===" in output
    other = CaptureConsole()
    with boot(initramfs, "threaded", other, "none") as machine:
        replay = Replay(read_recording(str(tmp_path / "run")), identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None), timeout=TIMEOUT), pytest.fail)
    assert other.output == console.output


def test_a_restored_guest_loses_its_connections_and_makes_new_ones(tmp_path: Path, initramfs: Path) -> None:
    console = CaptureConsole()
    first, second = Host(tmp_path / "first"), Host(tmp_path / "second")
    with boot(initramfs, "auto-async", console, f"unix:{tmp_path / 'first'}", "vsock=hold") as machine:
        while b"holding 52" not in console.output:
            assert machine.run(fuel=50_000_000, timeout=TIMEOUT).reason is StopReason.FUEL, console.output
        machine.run(fuel=10_000_000, timeout=TIMEOUT)
        assert b"lost" not in console.output and b"connect 52" not in console.output
        state = machine.save()
    first.join()
    with Machine.restore(state, vsock=Vsock(_CID, f"unix:{tmp_path / 'second'}"), console=console) as machine:
        result = machine.run(timeout=TIMEOUT)
    state.close()
    output = console.output.decode(errors="replace").replace("\r", "")
    assert result.reason is StopReason.EXITED, output
    assert "lost 52: Connection reset by peer\n" in output
    assert "echo 52: sender 0, got 1000, right 1000, end\n" in output
    second.join()
