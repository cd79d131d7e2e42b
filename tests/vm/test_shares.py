"""Shared directories of machines: what a guest does is done, and comes again without the directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dbt import CaptureConsole, Machine
from dbt.devices.state import StateError
from dbt.host.ninep import messages as m
from dbt.host.ninep.fids import Fid
from dbt.host.ninep.share import Share
from dbt.vm.history import HistoryError
from dbt.vm.input import RecordingError, ReplayDiverged
from dbt.vm.machine import TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.shared_directory import ShareError
from dbt.vm.state import state_hash
from dbt.vm.vm_state import VmState
from tests.devices.virtio.guest import DATA, ORIGIN
from tests.devices.virtio.ninep_guest import ROOM, NinePGuest
from tests.host.ninep.client import ROOT, long, text, words
from tests.vm.programs import TIERS

_RAM = 32 << 20
_FUEL = 10**6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    share = tmp_path / "share"
    share.mkdir()
    (share / "a").write_bytes(b"hello" * 50)
    (share / "link").symlink_to("/etc/passwd")
    os.mkfifo(share / "fifo")
    return share


def reader() -> bytes:
    """A guest to which no host's times matter, and that leaves a file open."""
    guest = NinePGuest()
    guest.walk(1, "a")
    guest.open(1, os.O_RDONLY)
    for at in range(8):
        guest.read_at(1, 7 * at, 30)
    guest.walk(2)
    guest.open(2, os.O_RDONLY | os.O_DIRECTORY)
    guest.ask(m.TREADDIR, words(2) + long(0) + words(1000))
    guest.ask(m.TCLUNK, words(2))
    return guest.image()


def writer() -> bytes:
    """A guest that makes a file, and looks at it and at its times."""
    guest = NinePGuest()
    guest.walk(1)
    guest.ask(m.TLCREATE, words(1) + text("made") + words(os.O_RDWR, 0o600, 0))
    for at in range(8):
        guest.write_at(1, 5 * at, b"%05d" % at)
    guest.read_at(1, 0, 100)
    guest.ask(m.TGETATTR, words(1) + long(0x7FF))
    guest.ask(m.TRENAMEAT, words(ROOT) + text("made") + words(ROOT) + text("renamed"))
    guest.ask(m.TCLUNK, words(1))
    guest.walk(3, "a")
    guest.open(3, os.O_RDONLY)
    return guest.image()


_WRITTEN = b"".join(b"%05d" % at for at in range(8))


def made(share: Share, image: bytes, tier: TierName = "threaded") -> Machine:
    machine = Machine(_RAM, tier=tier, board="virt", shares=[share], console=CaptureConsole())
    machine.load_bytes(image, base=ORIGIN)
    return machine


def answer(machine: Machine, number: int) -> bytes:
    data = machine.read(DATA + ROOM * number, ROOM)
    return data[: int.from_bytes(data[:4], "little")]


@pytest.mark.parametrize("tier", TIERS)
def test_a_guest_reads_and_writes_files(root: Path, tier: TierName) -> None:
    with made(Share(str(root)), writer(), tier) as machine:
        assert machine.run(fuel=_FUEL).exit_code == 0
        assert answer(machine, 12)[11:] == _WRITTEN
    assert (root / "renamed").read_bytes() == _WRITTEN
    with made(Share(str(root), read_only=True), reader(), tier) as machine:
        assert machine.run(fuel=_FUEL).exit_code == 0
        assert answer(machine, 5)[11:] == (b"hello" * 50)[7:37]


def test_every_tier_ends_in_the_same_state(root: Path) -> None:
    hashes = set()
    for tier in TIERS:
        with made(Share(str(root)), reader(), tier) as machine:
            assert machine.run(fuel=_FUEL).exit_code == 0
            hashes.add((state_hash(machine), machine.icount))
    assert len(hashes) == 1


def test_a_machine_goes_on_from_any_point(root: Path) -> None:
    """States saved while requests are in flight and files are open, restored and forked, end as the whole run does."""
    share = Share(str(root))
    with made(share, reader()) as whole:
        assert whole.run(fuel=_FUEL).exit_code == 0
        end, wanted = whole.icount, state_hash(whole)
    random, serving = Random(1), 0
    for _ in range(30):
        with made(share, reader()) as machine:
            machine.run(fuel=random.randrange(end))
            serving += machine.timeline.next_tick is not None
            with machine.save() as state:
                again = Machine.restore(state, tier="threaded", shares=[share], console=CaptureConsole())
            checkpoint = machine.checkpoint()
            with again, machine.fork(console=CaptureConsole()) as fork:
                for one in (again, machine, fork):
                    assert one.run(fuel=_FUEL).exit_code == 0
                    assert state_hash(one) == wanted and one.icount == end
            machine.rollback(checkpoint)
            assert machine.run(fuel=_FUEL).exit_code == 0
            assert state_hash(machine) == wanted
    assert serving > 10


def recorded(share: Share, path: Path) -> bytes:
    """Record the writing guest. Return the answers that it got."""
    with made(share, writer()) as machine:
        recorder = Recorder(machine.input_source, str(path), identify(machine, ""))
        machine.attach_input(recorder)
        result = machine.run(fuel=_FUEL)
        recorder.end(machine, result)
        return machine.read(DATA, 18 * ROOM)


def replay(machine: Machine, path: Path) -> None:
    source = Replay(read_recording(str(path)), identify(machine, ""))
    machine.attach_input(source)
    source.compare(machine, machine.run(fuel=source.fuel(machine.icount, None)), pytest.fail)


@pytest.mark.parametrize("tier", TIERS)
def test_a_replay_needs_no_directory(root: Path, tmp_path: Path, tier: TierName) -> None:
    answers = recorded(Share(str(root)), tmp_path / "recording")
    shutil.rmtree(root)
    with made(Share(None), writer(), tier) as machine:
        replay(machine, tmp_path / "recording")
        assert machine.read(DATA, 18 * ROOM) == answers


def test_a_replay_goes_on_from_any_point(root: Path, tmp_path: Path) -> None:
    path, random = tmp_path / "recording", Random(2)
    recorded(Share(str(root)), path)
    end = read_recording(str(path)).end
    assert end is not None
    shutil.rmtree(root)
    for _ in range(20):
        with made(Share(None), writer()) as machine:
            machine.attach_input(Replay(read_recording(str(path)), identify(machine, "")))
            machine.run(fuel=random.randrange(1, end.icount))
            with machine.save() as state:
                again = Machine.restore(state, tier="threaded", shares=[Share(None)], console=CaptureConsole())
            with again:
                replay(again, path)


def test_a_replay_is_of_the_same_requests(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "recording"
    recorded(Share(str(root)), path)
    lines = path.read_text().splitlines(keepends=True)
    without = tmp_path / "without"
    without.write_text("".join(line for line in lines if '"end"' not in line and line != lines[-2]))
    with made(Share(None), writer()) as machine:
        machine.attach_input(Replay(read_recording(str(without)), identify(machine, "")))
        with pytest.raises(ReplayDiverged, match="asks for a file of the host"):
            machine.run(fuel=_FUEL)
    with (
        made(Share(None, "other"), writer()) as machine,
        pytest.raises(RecordingError, match="shared directories is other here and was share"),
    ):
        Replay(read_recording(str(path)), identify(machine, ""))
    damaged = tmp_path / "damaged"
    for text_ in ("*", "AAAA", ""):
        damaged.write_text(lines[0] + f'["answer", 5, "{text_}"]\n')
        with pytest.raises(RecordingError, match="damaged in line 2"):
            read_recording(str(damaged))


def test_without_a_recording_there_must_be_a_directory(tmp_path: Path) -> None:
    with made(Share(None), reader()) as machine, pytest.raises(RecordingError, match="only what was recorded"):
        machine.run(fuel=_FUEL)
    with pytest.raises(ShareError, match="cannot be shared: No such file"):
        made(Share(str(tmp_path / "none")), reader())


def test_a_history_does_nothing_twice(root: Path) -> None:
    with made(Share(str(root)), writer()) as machine, closing(machine.begin_history()) as history:
        assert history.run(fuel=_FUEL).exit_code == 0
        wanted, end = state_hash(machine), machine.icount
        (root / "renamed").write_bytes(b"mine")
        before = sorted(os.listdir(root)), (root / "renamed").stat().st_mtime_ns
        for icount in (end // 2, 100, end * 3 // 4):
            history.run_to(icount)
            history.run_to(end)
            assert state_hash(machine) == wanted
        assert before == (sorted(os.listdir(root)), (root / "renamed").stat().st_mtime_ns)


def test_a_history_leads_elsewhere_only_with_its_files(root: Path) -> None:
    with made(Share(str(root)), reader()) as machine, closing(machine.begin_history()) as history:
        history.run(fuel=_FUEL)
        (root / "a").rename(root / "b")
        history.run_to(machine.icount - 200)
        history.branch()  # the machine has the file open itself
        machine.attachments._shares[0]._server.forget()  # type: ignore[union-attr]
        history.run(fuel=100)
        history.run_to(machine.icount - 50)
        with pytest.raises(HistoryError, match="the shared file 'a' open, and now: Stale file handle"):
            history.branch()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a").unlink(), "the shared file 'a' open, and it cannot be opened: Stale"),
        (lambda root: os.replace(root / "fifo", root / "a"), "cannot be opened: Permission denied"),
        (lambda root: os.replace(root / "link", root / "a"), "symbolic links"),
    ],
)
def test_a_file_that_is_gone_is_refused(root: Path, change: Callable[[Path], object], message: str) -> None:
    with made(Share(str(root)), reader()) as machine:
        machine.run(fuel=_FUEL)
        state = machine.save()
    change(root)
    with pytest.raises(StateError, match=message):
        Machine.restore(state, shares=[Share(str(root))])
    state.close()


def test_a_saved_machine_has_the_same_shares(root: Path) -> None:
    with made(Share(str(root)), reader()) as machine:
        machine.run(fuel=_FUEL)
        state = machine.save()
    for shares, given in (
        ([], "none"),
        ([Share(str(root), "other")], "other"),
        ([Share(str(root), read_only=True)], "share,ro"),
    ):
        with pytest.raises(StateError, match=f"directories share when .* given {given} now. Give it the same ones"):
            Machine.restore(state, shares=shares)
    state.close()


@pytest.mark.parametrize(
    "saved",
    [
        None,
        {},
        [[]],
        [{}],
        [{"tag": "share"}],
        [{"tag": "share", "read_only": 0}],
        [{"tag": b"share", "read_only": False}],
    ],
)
def test_a_saved_state_says_of_shares_what_it_must(root: Path, saved: Any) -> None:
    shares = [Share(str(root))]
    with made(shares[0], reader()) as machine, machine.save() as state:
        wrong = VmState({**state.values, "shares": saved}, state.ram)
        with pytest.raises(StateError, match="director"):
            Machine.restore(wrong, shares=shares)


@pytest.mark.parametrize(
    "fid", [b"", b"x" * 11, Fid((b"..",), 1).pack(), Fid((b"a", b""), 1).pack(), bytes(12) + b"a\0"]
)
def test_hostile_fids_are_refused(root: Path, fid: bytes) -> None:
    with made(Share(str(root)), reader()) as machine:
        machine.run(fuel=_FUEL)
        machine.attachments._shares[0].device.fids[7] = fid
        with machine.save() as state, pytest.raises(StateError, match="the shared directory share is none"):
            Machine.restore(state, shares=[Share(str(root))])


def test_shares_that_make_no_sense_are_refused(root: Path) -> None:
    path = str(root)
    for shares, message in (
        ([path], "no list of Share"),
        ([Share(path), Share(path)], "the same tag"),
        ([Share(path, "")], "1 to 31 bytes"),
        ([Share(path, "x" * 32)], "1 to 31 bytes"),
        ([Share(path, "a\0")], "1 to 31 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            Machine(_RAM, board="virt", shares=shares)  # type: ignore[arg-type]
