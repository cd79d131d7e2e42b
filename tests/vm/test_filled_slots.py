"""Disks for slots that were empty when a machine was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from dbt import CaptureConsole, Machine
from dbt.devices.state import StateError
from dbt.host.disk import DiskError
from dbt.host.disk_files import FileSequence
from dbt.host.drive import Drive
from dbt.vm.state import state_hash
from tests.devices.virtio.guest import DATA, ORIGIN, SECTOR, TRANSPORT, Guest

_RAM = 32 << 20
_BLOCK = 4096
_EMPTY = Drive("", read_only=True)
_INTERRUPT_STATUS, _CAPACITY, _CONFIG_CHANGE = 0x60, 0x100, 3


def waiting() -> Machine:
    """Return a machine whose guest waits for a disk of 16 sectors, and reads all of it."""
    guest = Guest()
    guest.await_value(TRANSPORT + _INTERRUPT_STATUS, _CONFIG_CHANGE)
    guest.await_value(TRANSPORT + _CAPACITY, 16)
    guest.request(0, 0, 16 * SECTOR, DATA, writable=True)
    machine = Machine(_RAM, tier="threaded", board="virt", drives=[_EMPTY], console=CaptureConsole())
    machine.load_bytes(guest.image(), base=ORIGIN)
    return machine


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    random, paths = Random(3), [tmp_path / "lower", tmp_path / "upper"]
    for path in paths:
        path.write_bytes(random.randbytes(_BLOCK))
    return paths


def restored(drive: Drive) -> Machine:
    with waiting() as machine:
        assert machine.run(fuel=20000).exit_code is None
        with machine.save() as state:
            return Machine.restore(state, tier="threaded", drives=[drive], console=CaptureConsole())


def test_a_guest_hears_of_a_disk_and_reads_it(files: Sequence[Path]) -> None:
    with restored(Drive(str(files[0]), read_only=True, more=(str(files[1]),))) as machine:
        assert machine.run(fuel=10**6).exit_code == 0
        assert machine.read(DATA, 2 * _BLOCK) == b"".join(path.read_bytes() for path in files)


def test_a_filled_slot_is_state_as_any_other(files: Sequence[Path]) -> None:
    drive = Drive(str(files[0]), read_only=True, more=(str(files[1]),))
    with restored(drive) as machine:
        machine.run(fuel=10)
        with machine.save() as state:
            assert state.hash() == state_hash(machine)
            again = Machine.restore(state, tier="threaded", drives=[drive], console=CaptureConsole())
        with again:
            for one in (machine, again):
                assert one.run(fuel=10**6).exit_code == 0
            assert state_hash(machine) == state_hash(again) and machine.icount == again.icount


def test_an_empty_slot_stays_empty() -> None:
    with restored(_EMPTY) as machine:
        assert machine.run(fuel=20000).exit_code is None
        with waiting() as other:
            other.run(fuel=machine.icount)
            assert state_hash(machine) == state_hash(other)


def test_a_slot_is_filled_as_it_was_offered(files: Sequence[Path]) -> None:
    with pytest.raises(StateError, match="other options than when the machine was saved"):
        restored(Drive(str(files[0])))


def test_files_one_behind_the_other(files: Sequence[Path]) -> None:
    data = b"".join(path.read_bytes() for path in files)
    with FileSequence([str(path) for path in files]) as sequence:
        assert sequence.size == len(data)
        for offset, size in ((0, 2 * _BLOCK), (_BLOCK - 512, 1024), (_BLOCK, 512), (2 * _BLOCK - 512, 1024), (0, 0)):
            assert sequence.read(offset, size) == data[offset : offset + size].ljust(size, b"\0")
        version = sequence.version()
        files[1].write_bytes(data[:_BLOCK])
        assert sequence.version() != version


def test_files_of_no_whole_blocks_are_refused(files: Sequence[Path]) -> None:
    files[1].write_bytes(bytes(100))
    with pytest.raises(DiskError, match="upper has 100 bytes, and no whole blocks"):
        FileSequence([str(path) for path in files])


@pytest.mark.parametrize(
    "drive",
    [
        Drive("a", more=("b",)),
        Drive("", snapshot=True),
        Drive("a", True, True, more=("b",)),
        Drive("", True, more=("b",)),
    ],
)
def test_drives_that_make_no_sense(drive: Drive) -> None:
    assert drive.fault()
