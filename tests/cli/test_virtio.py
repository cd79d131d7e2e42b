"""``--drive``, ``--net`` and their like: what they mean, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_drive
from dbt.host.drive import Backing, Drive
from tests.assembler import assemble
from tests.cli.command import dbt, paragraph
from tests.devices.virtio.guest import ORIGIN, SECTOR, copier
from tests.host.qcow2_images import NEEDS_QEMU_IMG, qemu_img
from tests.vm.programs import EXIT

_LINE = ("--tier", "threaded", "--board", "virt", "--base", hex(ORIGIN))


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("virtio") / "copier.bin"
    path.write_bytes(copier())
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "a,disk"
    path.write_bytes(b"".join(bytes([number]) * SECTOR for number in range(64)))
    return path


def test_a_guest_writes_to_its_disk_or_not(guest: Path, disk: Path) -> None:
    name = str(disk).replace(",", ",,")
    before = disk.read_bytes()
    for more in (",snapshot", ",overlay=" + str(disk.parent / "overlay"), ""):
        assert disk.read_bytes() == before
        done = dbt("run", *_LINE, "--drive", f"file={name}{more}", "--net", "none", "--rng", "seed=3", guest)
        assert done.returncode == 0, done.stderr
    assert disk.read_bytes()[8 * SECTOR : 16 * SECTOR] == before[: 8 * SECTOR]
    done = dbt("run", *_LINE, "--drive", f"file={name},readonly", guest)
    assert done.returncode == 1  # the status that the disk gave


@NEEDS_QEMU_IMG
def test_a_qcow2_image_is_whole_when_the_command_ends(guest: Path, disk: Path) -> None:
    """The guest has not flushed what it wrote."""
    image, flat = disk.parent / "image", disk.parent / "flat"
    before = disk.read_bytes()
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    done = dbt("run", *_LINE, "--drive", f"file={image},format=qcow2", guest)
    assert done.returncode == 0, done.stderr
    qemu_img("check", "-f", "qcow2", image)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, flat)
    assert flat.read_bytes() == before[: 8 * SECTOR] * 2 + before[16 * SECTOR :]


def test_sockets_are_gone_when_the_command_ends(guest: Path, disk: Path) -> None:
    path = disk.parent / "vsock"
    for _ in range(2):
        done = dbt("run", *_LINE, "--drive", f"file={disk.parent}/a,,disk", "--vsock", f"3,unix:{path}", guest)
        assert (done.returncode, path.exists()) == (0, False), done.stderr


def test_a_guest_is_asked_for_memory(tmp_path: Path) -> None:
    """It exits with what it is asked for, in pages. A recording has that."""
    path, recording = tmp_path / "guest.bin", tmp_path / "recording"
    path.write_bytes(assemble(f"ldr r4, =0x0a003f00 ; 1: ldr r2, [r4] ; cmp r2, #0 ; beq 1b ; {EXIT}", ORIGIN))
    asked = ("--balloon-size", "28K")
    assert dbt("run", *_LINE, *asked, "--record", recording, path).returncode == 7
    assert dbt("run", *_LINE, *asked, "--replay", recording, path).returncode == 7
    for more in ("5", "1G"):
        assert "--balloon-size" in paragraph(dbt("run", *_LINE, "--balloon-size", more, path), Status.USAGE)


@pytest.mark.parametrize(
    ("text", "drive"),
    [
        ("file=a", Drive("a")),
        ("file=a,,b,readonly", Drive("a,b", read_only=True)),
        ("readonly=off,snapshot=on,file=a,format=raw", Drive("a", snapshot=True)),
        ("file=a,serial=x=y,overlay=c", Drive("a", serial="x=y", overlay="c")),
        ("file=a,format=qcow2,readonly", Drive("a", read_only=True, format="qcow2")),
        (
            "file=a,format=qcow2,snapshot,backing=b,,c,backing-format=qcow2,backing=d",
            Drive("a", snapshot=True, format="qcow2", backing=(Backing("b,c", "qcow2"), Backing("d"))),
        ),
    ],
)
def test_what_a_drive_means(text: str, drive: Drive) -> None:
    assert parse_drive("--drive", text) == drive


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "with the name of a file") for text in ("", "snapshot", "file=")),
        ("file=a,file=b", "file is there twice"),
        ("file=a,foo", "there is no option foo"),
        ("file=a,backing-format=raw", "there is no option backing-format"),
        ("file=a,readonly=1", "none of on, off"),
        ("file=a,format=vmdk", "no disks of format vmdk, but of raw, qcow2"),
        ("file=a,format=qcow2,readonly,backing=b,backing-format=vdi", "no disks of format vdi"),
        ("file=a,backing=b", "is a raw image, which has no backing file"),
    ],
)
def test_what_is_no_drive(text: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        parse_drive("--drive", text)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("--board", "virt", "--drive", "file=/none"), Status.BAD_INPUT, "cannot open the disk /none: No such file"),
        (("--board", "virt", "--net", "unix:/none"), Status.BAD_INPUT, "cannot connect the network to unix:/none"),
        (
            ("--board", "versatile", "--balloon", "--memory", "257M"),
            Status.USAGE,
            "257M: so much RAM hides the virtio",
        ),
        (
            ("--vsock", "2,none"),
            Status.USAGE,
            "--vsock 2,none: this is not CID,unix:PATH or CID,none",
        ),
        (("--vsock", "3,tcp:1"), Status.USAGE, "--vsock 3,tcp:1: this is not CID,unix:PATH"),
        (("--vsock", "3,unix:/none/x"), Status.BAD_INPUT, "cannot listen at unix:/none/x: No such file"),
        (("--board", "virt", *(("--net", "hub:a") * 33)), Status.USAGE, "at most 32, and 33 are wanted"),
    ],
)
def test_what_cannot_be_had(guest: Path, options: tuple[str, ...], status: Status, text: str) -> None:
    assert text in paragraph(dbt("run", *options, guest), status)
