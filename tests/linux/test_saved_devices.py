"""Debian's kernel with every virtio device is saved and forked anywhere in its boot and its work with them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.host.drive import Drive
from dbt.host.net_option import Net
from dbt.host.ninep.share import Share
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN
from tests.vm.saved_runs import Mode, check_saves

pytestmark = [
    NEEDS_DEBIAN,
    pytest.mark.skipif(shutil.which("mke2fs") is None, reason="mke2fs is not installed (e2fsprogs)"),
]
_POINTS = 1000 if os.environ.get("DBT_LONG_TESTS") else 8
_APPEND = "console=ttyAMA0 console=hvc0 rdinit=/init-virt autooff"
#: The modules of the devices are loaded after the first of these icounts, and the guest powers off behind the last.
_WORK, _END = 3_420_000_000, 4_000_000_000


def _disk(folder: Path) -> Drive:
    """An ext4 with a file, as one that the guest writes to and that stays as it is."""
    path, root = folder / "disk", folder / "root"
    root.mkdir()
    (root / "file").write_bytes(random.Random(1).randbytes(300_000))
    subprocess.run(("mke2fs", "-q", "-t", "ext4", "-d", root, path, "8M"), check=True)
    return Drive(str(path), snapshot=True)


def _share(folder: Path) -> Share:
    """A directory whose times do not change when it is read."""
    share = folder / "share"
    share.mkdir()
    (share / "one").write_bytes(b"one")
    (share / "two").write_bytes(b"two" * 5000)
    for path in (*share.iterdir(), share):
        os.utime(path, (time.time() + 86400, 1_767_225_600))
    return Share(str(share))


def test_every_device_is_saved_anywhere(tmp_path: Path) -> None:
    drives, nets, shares = [_disk(tmp_path)], [Net("none")], [_share(tmp_path)]

    def start(mode: Mode) -> Machine:
        machine = Machine(
            256 << 20,
            tier=mode[0],
            jit=mode[1],
            console=CaptureConsole(),
            cpu="cortex-a15",
            devices=["rng", "balloon", "console"],
            drives=drives,
            nets=nets,
            shares=shares,
        )
        machine.load_kernel(KERNEL, initrd=DISK, append=_APPEND)
        return machine

    chance = random.Random(29)
    icounts = {chance.randrange(_WORK if index % 4 else 1, _END) for index in range(_POINTS)}
    check_saves(start, ("auto", "async"), sorted(icounts), 20_000_000, drives=drives, nets=nets, shares=shares)
