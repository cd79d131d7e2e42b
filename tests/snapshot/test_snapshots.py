"""States of machines in files: a machine that is restored goes on as the one that was saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.layout import PAGE_SHIFT
from dbt.devices.state import StateError
from dbt.snapshot.errors import SnapshotError, SnapshotNotWritten
from dbt.snapshot.info import SnapshotInfo, verify
from dbt.snapshot.snapshots import check_writable, read_snapshot, write_snapshot
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from dbt.vm.vm_state import VmState
from tests.snapshot.machines import FIRST, MEMORY, SECOND, minios, save_pair

GOES_ON = 400_000


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("tier", ["threaded", "auto", "reference"])
def test_a_restored_machine_goes_on_as_the_saved_one(tmp_path: Path, tier: TierName) -> None:
    fuel = GOES_ON if tier != "reference" else 20_000
    base, child = save_pair(tmp_path)
    for path, icount in ((base, FIRST), (child, SECOND)):
        with minios(icount) as machine, read_snapshot(path) as state:
            assert state.icount == icount
            assert state.hash() == state_hash(machine)
            with Machine.restore(state, tier=tier, console=CaptureConsole()) as restored:
                assert state_hash(restored) == state_hash(machine)
                machine.run(fuel=fuel)
                restored.run(fuel=fuel)
                assert restored.icount == machine.icount
                assert state_hash(restored) == state_hash(machine)


def test_a_file_is_read_once_as_long_as_somebody_has_its_state(tmp_path: Path) -> None:
    base, child = save_pair(tmp_path)
    for path in (base, child):
        before = descriptors()
        one = read_snapshot(path)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1  # nobody looks at it
        path.write_bytes(data)
        other = read_snapshot(path)
        assert other.hash() == one.hash()
        one.close()
        with Machine.restore(other, tier="reference", console=CaptureConsole()) as machine:
            assert state_hash(machine) == other.hash()
        other.close()
        assert descriptors() == before
        with pytest.raises(SnapshotError):
            read_snapshot(path)
        assert descriptors() == before
        data[-1] ^= 1
        path.write_bytes(data)


def test_the_pages_of_an_increment_may_be_given(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with minios(FIRST) as machine:
        with machine.save() as state:
            write_snapshot(state, base)
            known = set(state.ram.pages)
        machine.run(fuel=SECOND - FIRST)
        with machine.save() as state:
            pages = [*known, *state.ram.pages, MEMORY - 1 >> PAGE_SHIFT]  # some are the same, and one was always zero
            write_snapshot(state, tmp_path / "given", base, pages)
            write_snapshot(state, tmp_path / "found", base)
            expected = state.hash()
    for name in ("given", "found"):
        with read_snapshot(tmp_path / name) as state:
            assert state.hash() == expected
    given, found = (SnapshotInfo.read(tmp_path / name).file for name in ("given", "found"))
    assert given.cleared >= 1
    assert found.pages < given.pages


@pytest.mark.parametrize("tier", ["threaded", "auto", "reference"])
def test_the_dirty_log_knows_the_pages_of_an_increment(tmp_path: Path, tier: TierName) -> None:
    fuel = SECOND - FIRST if tier != "reference" else 20_000
    with minios(FIRST) as first, first.save() as state:
        write_snapshot(state, tmp_path / "base")
        with Machine.restore(state, tier=tier, console=CaptureConsole()) as machine:
            epoch = machine.memory.begin_epoch()
            machine.run(fuel=fuel)
            with machine.save() as later:
                write_snapshot(later, tmp_path / "child", tmp_path / "base", epoch.dirty_pages())
                expected = later.hash()
    with read_snapshot(tmp_path / "child") as state:
        assert state.hash() == expected


def test_the_digest_names_the_state(tmp_path: Path) -> None:
    with minios(FIRST) as machine, machine.save() as state:
        digest = write_snapshot(state, tmp_path / "a")
        assert write_snapshot(state, tmp_path / "b") == digest
        with read_snapshot(tmp_path / "a") as again:
            assert write_snapshot(again, tmp_path / "c") == digest
    assert SnapshotInfo.read(tmp_path / "c").file.digest == digest


def test_parents_that_cannot_be(tmp_path: Path) -> None:
    base, child = save_pair(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with read_snapshot(child) as state:
        for path, parent, why in (
            (tmp_path / "elsewhere/a", base, "in the directory of its parent"),
            (base, base, "a file that it needs"),
            (base, child, "a file that it needs"),
            (child, child, "a file that it needs"),
        ):
            before = path.read_bytes() if path.exists() else None
            with pytest.raises(SnapshotNotWritten, match=why) as caught:
                write_snapshot(state, path, parent)
            assert "\n" not in str(caught.value)
            with pytest.raises(SnapshotNotWritten, match=why):
                check_writable(path, parent)
            assert (path.read_bytes() if path.exists() else None) == before
        write_snapshot(state, child, base)  # its own parent may stay one
        with pytest.raises(SnapshotError, match="no snapshot of dbt"):
            write_snapshot(state, tmp_path / "a", __file__)
    with (
        Machine(memory=1 << 20) as machine,
        machine.save() as state,
        pytest.raises(SnapshotNotWritten, match="the machine has RAM at"),
    ):
        write_snapshot(state, tmp_path / "a", base)


def test_places_that_cannot_be_written_are_known_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    for path in (tmp_path, tmp_path / "missing/a", "a\0b"):
        with pytest.raises(SnapshotNotWritten, match="cannot be written"):
            check_writable(path)
    assert not os.listdir(tmp_path)


def test_info_and_verify(tmp_path: Path) -> None:
    base, child = save_pair(tmp_path)
    info = SnapshotInfo.read(child)
    assert [file.path for file in info.parents] == [str(base)]
    assert info.value("icount") == SECOND
    assert info.value("guest", "is_kernel") is False
    assert info.value("guest", "nothing", "there") is None
    assert info.ram_pages == MEMORY >> PAGE_SHIFT
    assert verify(child) == info
    data = bytearray(base.read_bytes())
    data[-1] ^= 1
    base.write_bytes(data)
    assert SnapshotInfo.read(child) == info  # which reads no RAM
    with pytest.raises(SnapshotError, match=str(base)):
        verify(child)


def test_a_state_of_another_version_is_told_by_its_fields() -> None:
    with minios() as machine, machine.save() as state:
        other = VmState(
            {**{name: value for name, value in state.values.items() if name != "nets"}, "new": 1}, state.ram
        )
        with pytest.raises(StateError, match="lacks nets and has 'new', which is unknown here: another version of dbt"):
            Machine.restore(other, console=CaptureConsole())
