"""Disks of machines: files and locks, states with a request in flight, forks, checkpoints."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from dbt import CaptureConsole, Machine
from dbt.devices.state import StateError
from dbt.host.disk import DiskError, RawFile
from dbt.host.drive import Drive
from dbt.host.qcow2 import Qcow2File
from dbt.vm.checkpoint import CheckpointError
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.devices.virtio.guest import DATA, ORIGIN, SECTOR, Guest, copier
from tests.host.qcow2_images import NEEDS_QEMU_IMG, qemu_img, small_content, small_image
from tests.vm.programs import TIERS

_SECTORS = 64
_RAM = 32 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(Random(5).randbytes(_SECTORS * SECTOR))
    return path


def made(drive: Drive, tier: TierName = "threaded", devices: tuple[str, ...] = ()) -> Machine:
    machine = Machine(_RAM, tier=tier, board="virt", drives=[drive], devices=devices, console=CaptureConsole())
    machine.load_bytes(copier(), base=ORIGIN)
    return machine


def copied(data: bytes) -> bytes:
    return data[: 8 * SECTOR] * 2 + data[16 * SECTOR :]


@pytest.mark.parametrize("tier", TIERS)
def test_a_guest_writes_to_the_file(disk: Path, tier: TierName) -> None:
    before = disk.read_bytes()
    with made(Drive(str(disk)), tier) as machine:
        assert machine.run(fuel=10**6).exit_code == 0
        assert machine.read(DATA, 8 * SECTOR) == before[: 8 * SECTOR]
    assert disk.read_bytes() == copied(before)


def test_every_tier_ends_in_the_same_state(disk: Path) -> None:
    hashes = set()
    for tier in TIERS:
        with made(Drive(str(disk), snapshot=True), tier, ("rng",)) as machine:
            assert machine.run(fuel=10**6).exit_code == 0
            hashes.add((state_hash(machine), machine.icount))
    assert len(hashes) == 1


def test_a_machine_goes_on_from_any_point(disk: Path) -> None:
    """States saved while requests are in flight, restored and forked, end as the uninterrupted run does."""
    before, drive = disk.read_bytes(), Drive(str(disk), snapshot=True)
    with made(drive) as whole:
        assert whole.run(fuel=10**6).exit_code == 0
        end, wanted = whole.icount, state_hash(whole)
    random, serving = Random(1), 0
    for _ in range(40):
        with made(drive) as machine:
            machine.run(fuel=random.randrange(end))
            serving += machine.timeline.next_tick is not None
            with machine.save() as state:
                assert state.hash() == state_hash(machine)
                again = Machine.restore(state, tier="threaded", drives=[drive], console=CaptureConsole())
            with again, machine.fork(console=CaptureConsole()) as fork:
                for one in (again, machine, fork):
                    assert one.run(fuel=10**6).exit_code == 0
                    assert state_hash(one) == wanted and one.icount == end
    assert serving > 20
    assert disk.read_bytes() == before


def test_a_checkpoint_has_the_disk(disk: Path) -> None:
    with made(Drive(str(disk), snapshot=True)) as machine:
        machine.run(fuel=20_000)
        before = state_hash(machine)
        with machine.checkpoint() as checkpoint:
            assert machine.run(fuel=10**6).exit_code == 0
            after = state_hash(machine)
            machine.rollback(checkpoint)
            assert state_hash(machine) == before
            assert machine.run(fuel=10**6).exit_code == 0
            assert state_hash(machine) == after


def test_an_overlay_is_used_again(disk: Path) -> None:
    """A state has the changes too, so it can be restored with another overlay."""
    before, first, second = disk.read_bytes(), str(disk.parent / "first"), str(disk.parent / "second")
    guest = Guest()
    guest.read(0, SECTOR)
    guest.write(9, SECTOR)
    guest.flush()
    with Machine(_RAM, board="virt", drives=[Drive(str(disk), overlay=first)], console=CaptureConsole()) as machine:
        machine.load_bytes(guest.image(), base=ORIGIN)
        assert machine.run(fuel=10**6).exit_code == 0
        with machine.save() as state, machine.fork(console=CaptureConsole()) as fork:
            machine.close()
            assert state_hash(fork) == state.hash()
            drives = [Drive(str(disk), overlay=second)]
            with Machine.restore(state, drives=drives, console=CaptureConsole()) as again:
                assert state_hash(again) == state.hash()
    assert disk.read_bytes() == before
    reader = Guest()
    reader.read(9, SECTOR)
    with Machine(_RAM, board="virt", drives=[Drive(str(disk), overlay=first)], console=CaptureConsole()) as machine:
        machine.load_bytes(reader.image(), base=ORIGIN)
        assert machine.run(fuel=10**6).exit_code == 0
        assert machine.read(DATA, SECTOR) == before[:SECTOR]


def test_a_file_without_a_size_is_refused_by_its_name() -> None:
    with pytest.raises(DiskError, match="cannot find the size of the disk /proc/self/mem"):
        made(Drive("/proc/self/mem", read_only=True))


def test_a_reset_keeps_what_is_on_the_disk(disk: Path) -> None:
    with made(Drive(str(disk), snapshot=True)) as machine:
        assert machine.run(fuel=10**6).exit_code == 0
        machine.reset()
        saved = machine.save()
        slots: Any = saved.values["devices"]
        assert len(slots["virtio slots"]["transports"][0]["device"][0]["medium"][0]["changed"]) == 1
        saved.close()


def test_a_file_that_is_written_cannot_go_back(disk: Path) -> None:
    with made(Drive(str(disk))) as machine:
        with pytest.raises(CheckpointError, match=r"disk\.img itself, which cannot go back"):
            machine.checkpoint()
        with pytest.raises(DiskError, match="another machine uses it"):
            machine.fork()
        saved = machine.save()
    with saved:
        Machine.restore(saved, drives=[Drive(str(disk))], console=CaptureConsole()).close()
        disk.write_bytes(disk.read_bytes())
        with pytest.raises(StateError, match="has been written since the machine was saved"):
            Machine.restore(saved, drives=[Drive(str(disk))], console=CaptureConsole())


@pytest.mark.parametrize(
    ("drives", "message"),
    [
        ([], "had 1 disk when it was saved, and is given 0"),
        ([Drive("disk.img")], "has other options"),
        ([Drive("disk.img", read_only=True, snapshot=True)], "has other options"),
        ([Drive("other.img", snapshot=True)], "another file"),
    ],
)
def test_a_state_wants_its_disks(
    disk: Path, monkeypatch: pytest.MonkeyPatch, drives: list[Drive], message: str
) -> None:
    monkeypatch.chdir(disk.parent)
    (disk.parent / "other.img").write_bytes(disk.read_bytes())
    with made(Drive("disk.img", snapshot=True)) as machine, machine.save() as state:
        machine.close()
        with pytest.raises(StateError, match=message):
            Machine.restore(state, drives=drives, console=CaptureConsole())
    with RawFile("disk.img", writable=True) as file:  # nobody has left it locked
        assert file.size == _SECTORS * SECTOR


def test_one_writer_or_many_readers(disk: Path) -> None:
    with RawFile(str(disk), writable=True):
        for writable in (True, False):
            with pytest.raises(DiskError, match="another machine uses it"):
                RawFile(str(disk), writable)
    with (
        RawFile(str(disk), writable=False),
        RawFile(str(disk), writable=False),
        pytest.raises(DiskError, match="another machine uses it"),
    ):
        RawFile(str(disk), writable=True)
    RawFile(str(disk), writable=True).close()


def test_a_disk_of_a_qcow2_image(tmp_path: Path) -> None:
    """The guest reads it and has its changes in the machine; where it is damaged, the user hears of it, once."""
    path = tmp_path / "image"
    path.write_bytes(small_image())
    drive = Drive(str(path), snapshot=True, format="qcow2")
    with made(drive) as machine:
        assert machine.run(fuel=10**6).exit_code == 0
        assert machine.read(DATA, 8 * SECTOR) == small_content()[: 8 * SECTOR]
        with machine.save() as state, Machine.restore(state, drives=[drive], console=CaptureConsole()) as again:
            assert state_hash(again) == state_hash(machine)
    damaged = bytearray(small_image())
    damaged[1024:1032] = b"\x80\0\0\0\0\xff\xfe\0"
    path.write_bytes(damaged)
    reader, notices = Guest(), list[str]()
    for _ in range(2):
        reader.read(0, SECTOR)
    with Machine(_RAM, board="virt", drives=[drive], console=CaptureConsole(), notice=notices.append) as machine:
        machine.load_bytes(reader.image(), base=ORIGIN)
        assert machine.run(fuel=10**6).exit_code == 1  # the status that the disk gave
    assert notices == [
        f"the guest gets an error from the disk {path}: the image {path} is damaged: cluster 0 is at 0xfffe00, behind "
        "the end of the file. Look at it with `qemu-img check`"
    ]


@NEEDS_QEMU_IMG
def test_a_guest_writes_to_a_qcow2_image(disk: Path) -> None:
    """It is whole when the machine is saved, which then goes on with the image as it is."""
    before, image = disk.read_bytes(), disk.parent / "image"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    drive = Drive(str(image), format="qcow2")
    with made(drive) as machine:
        assert machine.run(fuel=20_000).exit_code is None
        saved = machine.save()
    with saved, Machine.restore(saved, drives=[drive], console=CaptureConsole()) as again:
        assert again.run(fuel=10**6).exit_code == 0
    qemu_img("check", "-f", "qcow2", image)
    with Qcow2File(str(image)) as found:
        assert found.read(0, _SECTORS * SECTOR) == copied(before)


def test_what_is_no_disk(tmp_path: Path) -> None:
    import os

    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("empty", "is empty"),
        ("none", "No such file"),
        ("pipe", "neither"),
        (".", "Is a directory"),
    ):
        with pytest.raises(DiskError, match=message):
            Machine(board="virt", drives=[Drive(str(tmp_path / name))], console=CaptureConsole())


def test_there_are_so_many_slots(disk: Path) -> None:
    with pytest.raises(ValueError, match="RAM hides the virtio devices of the board versatile"):
        Machine(512 << 20, drives=[Drive(str(disk))], console=CaptureConsole())
    with pytest.raises(ValueError, match="at most 32 virtio devices"):
        Machine(board="virt", drives=[Drive(str(disk), read_only=True)] * 33, console=CaptureConsole())
    with pytest.raises(ValueError, match="different names"):
        Machine(board="virt", devices=["rng", "rng"], console=CaptureConsole())
