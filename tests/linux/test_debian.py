"""A Debian for armel on a disk is configured inside the machine and does real work, all as under QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.host.drive import Drive
from dbt.vm.result import StopReason
from tests.linux.debian import DISK, KERNEL, NEEDS_ROOT, ROOT

pytestmark = [
    NEEDS_ROOT,
    pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed"),
]
ARGUMENTS = "console=ttyAMA0 quiet panic=-1 rdinit=/init-root init=/srv/start"
_MEMORY = 512 << 20
#: Seconds; far more than it takes.
TIMEOUT = 3600.0


@contextmanager
def _under_qemu() -> Iterator[subprocess.Popen[bytes]]:
    """QEMU works in the block, beside dbt, and for twice as long as that. Its output is the console's."""
    command = (
        *("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off", "-m", "512"),
        *("-global", "virtio-mmio.force-legacy=false", "-nic", "none", "-display", "none", "-monitor", "none"),
        *("-serial", "stdio", "-no-reboot", "-kernel", str(KERNEL), "-initrd", str(DISK), "-append", ARGUMENTS),
        *("-drive", f"file={ROOT},format=raw,if=none,id=d,snapshot=on", "-device", "virtio-blk-device,drive=d"),
    )
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
        try:
            yield qemu
        finally:
            qemu.kill()


def _under_dbt() -> bytes:
    console = CaptureConsole()
    drive = Drive(str(ROOT), snapshot=True)
    with Machine(_MEMORY, board="virt", console=console, drives=[drive]) as machine:
        machine.load_kernel(KERNEL, initrd=DISK, append=ARGUMENTS)
        result = machine.run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-2000:]
    return bytes(console.output)


def _said(output: bytes) -> list[str]:
    """What the programs say, without the kernel's lines, which have times."""
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    return [line for line in lines if not re.match(r"\[ *[0-9.]+\] ", line)]


def _part(lines: list[str], begin: str, end: str) -> list[str]:
    return lines[lines.index(begin) + 1 : lines.index(end)]


def test_it_does_what_it_does_under_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code becomes hot as late as for users: here the guest is long, and would have nearly all of its code compiled."""
    monkeypatch.delenv("DBT_HOT_AFTER")
    with _under_qemu() as qemu, ThreadPoolExecutor(1) as reader:  # for its pipe would be full
        output = reader.submit(qemu.communicate, timeout=TIMEOUT)
        mine = _said(_under_dbt())
        theirs = _said(output.result()[0])
    assert qemu.returncode == 0
    packages = _part(mine, "=== CONFIGURED ===", "=== WORK tar ===")
    assert len(packages) > 100
    assert [line for line in packages if not line.startswith("ii ")] == []
    assert mine[-1] == "=== WORK DONE ==="
    assert mine == theirs
