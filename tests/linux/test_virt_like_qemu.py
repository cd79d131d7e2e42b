"""Debian's unmodified kernel for ARMv7 on the board virt says what it says under QEMU, with and without devices."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dbt import Net
from dbt.host.console import CaptureConsole
from dbt.host.drive import Drive
from dbt.host.ninep.share import Share
from dbt.vm.result import StopReason
from tests.host.passt import need_passt
from tests.linux.debian import ARGUMENTS, DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT, boot

pytestmark = [
    NEEDS_DEBIAN,
    pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed"),
]
#: What only QEMU's kernel says, of what only its board has; see docs/virt.md.
_ONLY_QEMU = re.compile(r"GICv2m: range|pci-host-generic |pci_bus |pci 0000:|PCI: bus0: ")
#: Numbers that differ, and what is put in their place: times, how much RAM the device tree takes, how often there was
#: an interrupt (but not whether), and for how long the network gives an address.
_NUMBERS = (
    (r"^\[ *[0-9.]+\] ", ""),
    (r"^(Memory: )\d+(K/.*, )\d+(K reserved)", r"\1N\2N\3"),
    (r"^(audit: type=2000 audit\()[0-9.]+", r"\1N"),
    (r"( setting system clock to ).*", r"\1N"),
    (r"^( *\d+: +)[1-9]\d*( +)", r"\1N "),
    (r"^(udhcpc: lease .* lease time )\d+", r"\1N"),
)


def said(output: bytes | bytearray) -> Counter[str]:
    """Return what the kernel and its programs say, without the numbers that differ. Some of the kernel's threads say
    their lines in an order that depends on the time.
    """
    lines = output.decode(errors="replace").replace("\r", "").splitlines()
    for pattern, text in _NUMBERS:
        lines = [re.sub(pattern, text, line) for line in lines]
    return Counter(lines)


def under_qemu(options: Sequence[str] = ("-nic", "none")) -> bytes:
    command = (
        *("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off", "-m", "256"),
        *("-global", "virtio-mmio.force-legacy=false", "-display", "none", "-monitor", "none", "-serial", "stdio"),
        *("-no-reboot", "-kernel", str(KERNEL), "-initrd", str(DISK), "-append", ARGUMENTS, *options),
    )
    return subprocess.run(command, check=True, timeout=TIMEOUT, capture_output=True, stdin=subprocess.DEVNULL).stdout


def check(mode: str, theirs: Counter[str], **more: Any) -> None:
    """Boot it in a tier, and assert that it says what it says under QEMU."""
    console = CaptureConsole()
    with boot(mode, console, **more) as machine:
        result = machine.run(timeout=TIMEOUT)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
    mine = said(console.output)
    assert "=== VIRTIO DONE ===" in mine
    assert mine - theirs == Counter(), "only here"
    assert [line for line in theirs - mine if not _ONLY_QEMU.match(line)] == [], "only under QEMU"


def test_it_says_what_it_says_under_qemu() -> None:
    theirs = said(under_qemu())
    for mode in ("threaded", "auto-async"):
        check(mode, theirs)


@pytest.mark.skipif(shutil.which("mke2fs") is None, reason="mke2fs is not installed (e2fsprogs)")
def test_it_says_the_same_of_a_device_of_each_kind(tmp_path: Path) -> None:
    """What is on the disk and in the directory, the address that it got, and what the drivers say."""
    need_passt()
    disk, root, share = tmp_path / "disk", tmp_path / "root", tmp_path / "share"
    for folder in (root, share):
        folder.mkdir()
        (folder / f"in {folder.name}").write_text(folder.name)
    subprocess.run(("mke2fs", "-q", "-t", "ext4", "-d", root, disk, "16M"), check=True)
    theirs = said(
        under_qemu(
            (
                *("-drive", f"file={disk},format=raw,if=none,id=d,snapshot=on", "-device", "virtio-blk-device,drive=d"),
                *("-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"),
                *("-device", "virtio-balloon-device,free-page-reporting=on", "-device", "virtio-serial-device"),
                *("-chardev", "null,id=c", "-device", "virtconsole,chardev=c"),
                *("-fsdev", f"local,id=f,path={share},security_model=none"),
                *("-device", "virtio-9p-device,fsdev=f,mount_tag=share"),
            )
        )
    )
    for text in ("in root", "in share", "udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2, lease time N"):
        assert any(text in line for line in theirs), text
    for mode in ("threaded", "auto-async"):
        check(
            mode,
            theirs,
            drives=[Drive(str(disk), snapshot=True)],
            nets=[Net("user")],
            devices=["rng", "balloon", "console"],
            shares=[Share(str(share))],
            realtime=True,
        )
