"""Disks that are copied while the guest runs: what arrives is what was there, or nothing does and it says why."""

from __future__ import annotations

import os
import random
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt import CaptureConsole, Machine
from dbt.host.disk import DiskError, RawFile
from dbt.host.drive import Backing, Drive
from dbt.host.qcow2 import Qcow2File
from dbt.hypervisor.migration import MigrationError, Point, Settings
from dbt.hypervisor.migration.arriving_storage import MARK, ArrivingFile, ArrivingStorage
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.hypervisor.migration.messages import Kind
from dbt.hypervisor.migration.points import ignore
from dbt.hypervisor.migration.storage import PIECE, Blocks
from tests.host.qcow2_images import small_content, small_image
from tests.migration.sides import Receiving, outgoing, place_of, receiving, write_disk

_COPIES = Settings(copies_storage=True)
_SIZE = 5 * PIECE + 512
Reached = Callable[[Point], None]


def content(size: int = _SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def made(*drives: Drive) -> Machine:
    return Machine(32 << 20, "threaded", board="virt", drives=drives, console=CaptureConsole())


def moved(folder: Path, machine: Machine, drives: list[Drive], way: str = "unix", reached: Reached = ignore) -> Machine:
    """Migrate with copies of disks, and return the machine at the destination."""
    with receiving(place_of(way, folder), {"drives": drives}) as there:
        outgoing(machine, there, way, _COPIES, reached).run()
        return there.machine()


def refusal(folder: Path, machine: Machine, drives: list[Drive], reached: Reached = ignore) -> str:
    """Migrate, and return why that is refused. The guest can go on, with its disk."""
    with receiving(place_of("unix", folder), {"drives": drives}) as there:
        with pytest.raises(MigrationError) as error:
            outgoing(machine, there, "unix", _COPIES, reached).run()
        assert isinstance(there.result(), MigrationError)
    machine.run(fuel=10)
    return str(error.value)


def at(point: Point, *actions: Callable[[], object]) -> Reached:
    """Do something at a point, another thing the second time that it is reached."""
    left = list(actions)

    def reached(found: Point) -> None:
        if found is point and left:
            left.pop(0)()

    return reached


@pytest.mark.parametrize("way", ["unix", "descriptor", "tcp"])
def test_a_disk_arrives_with_what_was_written_meanwhile(way: str, tmp_path: Path) -> None:
    """In the middle of a piece, at the end, and zeros in place of data. What was never written stays a hole."""
    here, there = tmp_path / "here", tmp_path / "there"
    with open(here, "wb") as file:
        file.write(content())
        file.truncate(64 << 20)
    machine = made(Drive(str(here)))

    def write() -> None:
        write_disk(machine, 700 * 512, b"new" * 512)
        write_disk(machine, (64 << 20) - 512, b"e" * 512)

    def write_more() -> None:
        write_disk(machine, 0, bytes(3 * PIECE))
        write_disk(machine, 700 * 512, b"newer".ljust(512))
        write_disk(machine, 9 << 20, b"late" * 128)

    early, late = at(Point.SOURCE_SENT_DISKS, write), at(Point.SOURCE_SENT_ROUND, write_more)
    with moved(tmp_path, machine, [Drive(str(there))], way, lambda point: (early(point), late(point))[0]) as found:
        assert here.read_bytes() == there.read_bytes()
        assert there.read_bytes()[9 << 20 :][:4] == b"late"
        assert there.stat().st_blocks * 512 < 2 << 20
        assert there.stat().st_mode & 0o777 == 0o600
        assert os.listdir(tmp_path).count("there" + MARK) == 0
        with pytest.raises(DiskError):
            RawFile(str(there), writable=True)
        write_disk(found, 0, b"more" * 128)
        assert here.read_bytes()[:4] != b"more"
    RawFile(str(here), writable=True).close()


def test_a_guest_that_writes_its_disk_faster_than_it_is_sent_is_slowed_down(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(content(4 << 20))
    machine, parts = made(Drive(str(here))), list[float | None]()

    def write(point: Point) -> None:
        if point is Point.SOURCE_SENT_DISKS and 0.25 not in parts:
            write_disk(machine, 0, content(4 << 20, len(parts)))

    with receiving(place_of("unix", tmp_path), {"drives": [Drive(str(there))]}) as receiver:
        move = outgoing(machine, receiver, "unix", _COPIES._replace(downtime_s=0), write)
        move._subject.throttle = parts.append  # type: ignore[method-assign,assignment]
        move.run()
        receiver.machine().close()
    assert parts == [0.5, 0.25, None]
    assert here.read_bytes() == there.read_bytes()


def test_an_overlay_arrives_with_its_image_or_finds_it_there(tmp_path: Path) -> None:
    base, copy = tmp_path / "base", tmp_path / "copy"
    base.write_bytes(content())
    (tmp_path / "there").mkdir()
    there = Drive(str(tmp_path / "there" / "base"), overlay=str(tmp_path / "there" / "overlay"))
    machine = made(Drive(str(base), overlay=str(tmp_path / "overlay")))
    write_disk(machine, 4096, b"first" * 1024)
    late = at(Point.SOURCE_SENT_ROUND, lambda: write_disk(machine, 8192, b"x" * 512))
    with moved(tmp_path, machine, [there], reached=late) as found:
        assert Path(there.path).read_bytes() == content()
        assert found.attachments._open[0].medium.read(4096, 5) == b"first"
        assert found.attachments._open[0].medium.read(8192, 1) == b"x"
        write_disk(found, 4096, b"again" * 1024)
        with moved(tmp_path / "there", found, [Drive(str(base), overlay=str(copy))]) as back:
            assert back.attachments._open[0].medium.read(4096, 5) == b"again"
    os.unlink(copy)
    base.write_bytes(content(seed=2))
    machine = made(there._replace(overlay=str(tmp_path / "another")))
    assert "is another one at the source" in refusal(tmp_path, machine, [Drive(str(base), overlay=str(copy))])
    assert not copy.exists()
    machine.close()


def test_an_image_of_qcow2_arrives_with_what_is_behind_it(tmp_path: Path) -> None:
    behind = content(130 << 16)
    (tmp_path / "behind").write_bytes(behind)
    (tmp_path / "image").write_bytes(small_image(bits=16, backing=b"any"))
    (tmp_path / "there").mkdir()
    here, there = (
        Drive(str(folder / "image"), format="qcow2", backing=(Backing(str(folder / "behind")),))
        for folder in (tmp_path, tmp_path / "there")
    )
    machine = made(here)
    first = at(Point.SOURCE_SENT_DISKS, lambda: write_disk(machine, 3 << 16, b"three" * 512))
    then = at(Point.SOURCE_SENT_ROUND, lambda: write_disk(machine, 64 << 16, b"four" * 512))
    moved(tmp_path, machine, [there], reached=lambda point: (first(point), then(point))[0]).close()
    expected = bytearray(small_content(bits=16, behind=behind))
    expected[3 << 16 : (3 << 16) + 2560] = b"three" * 512
    expected[64 << 16 : (64 << 16) + 2048] = b"four" * 512
    with Qcow2File(there.path, RawFile(there.backing[0].path, writable=False)) as found:
        assert found.read(0, found.size) == expected


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(content())
    there.write_bytes(b"precious")
    with made(Drive(str(here))) as machine:
        assert "exists already" in refusal(tmp_path, machine, [Drive(str(there))])
        assert "exists already" in refusal(tmp_path, machine, [Drive(str(here))])
        (tmp_path / ("there" + MARK)).write_bytes(b"of somebody else")
        assert "exists already" in refusal(tmp_path, machine, [Drive(str(there))])
        os.unlink(tmp_path / ("there" + MARK))
        os.symlink(tmp_path / "nowhere", tmp_path / "link")
        assert "exists already" in refusal(tmp_path, machine, [Drive(str(tmp_path / "link"))])
        assert not (tmp_path / "nowhere").exists()
    assert there.read_bytes() == b"precious"


def test_where_there_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(content())
    with made(Drive(str(here))) as machine:
        assert "no place" in refusal(tmp_path, machine, [Drive(str(tmp_path / "nowhere" / "disk"))])
        assert "other files" in refusal(tmp_path, machine, [])
        room = namedtuple("room", "f_bavail f_frsize")
        with monkeypatch.context() as change:
            change.setattr("os.statvfs", lambda path: room(1, 4096))
            assert "has room for 4,096" in refusal(tmp_path, machine, [Drive(str(there))])

        def fails(handle: int, data: bytes, offset: int) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as change:
            change.setattr("dbt.hypervisor.migration.arriving_storage.os.pwrite", fails)
            assert "No space left" in refusal(tmp_path, machine, [Drive(str(there))])
        assert sorted(os.listdir(tmp_path)) == ["here"]
        moved(tmp_path, machine, [Drive(str(there))]).close()
    assert here.read_bytes() == there.read_bytes()


def test_a_copy_that_differs_is_not_run(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(content())
    with made(Drive(str(here))) as machine:
        original = Channel.send_raw

        def altered(self: Channel, kind: Kind, body: tuple[Any, ...], descriptors: tuple[int, ...] = ()) -> None:
            if kind is Kind.BLOCKS and len(body[1]):
                body = (body[0], bytes(body[1][:-1]) + bytes([body[1][-1] ^ 1]))
            original(self, kind, body, descriptors)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Channel, "send_raw", altered)
            assert "its digest is another one" in refusal(tmp_path, machine, [Drive(str(there))])
        assert not there.exists()


def test_what_was_left_of_a_migration_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    arriving = ArrivingFile(str(path), 4096)
    with pytest.raises(MigrationError, match="being copied here already"):
        ArrivingFile(str(path), 4096)
    inode = path.stat().st_ino
    mark = (tmp_path / ("disk" + MARK)).read_bytes()
    arriving.close()
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"x" * 4096)
    (tmp_path / ("disk" + MARK)).write_bytes(mark.replace(b"%d" % inode, b"%d" % path.stat().st_ino))
    with RawFile(str(path), writable=True), pytest.raises(MigrationError, match="exists already"):
        ArrivingFile(str(path), 4096)
    with ArrivingFile(str(path), 8192):
        assert path.stat().st_size == 8192
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"")
    (tmp_path / ("disk" + MARK)).write_bytes(b"")  # killed before it was written
    ArrivingFile(str(path), 4096).close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        ([[[4096, 0, 0]], []], "other files"),
        ([7], "other files"),
        ([[[0, 0, 0]]], "makes no sense"),
        ([[[1 << 50, 0, 0]]], "makes no sense"),
        ([[[4096, 8192, 0]]], "makes no sense"),
        ([[[4096, 0, -1]]], "makes no sense"),
        ([[["a", 0, 0]]], "makes no sense"),
    ],
)
def test_an_offer_of_disks_that_makes_no_sense(offered: list[Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=why):
        ArrivingStorage([Drive(str(tmp_path / "disk"))], offered)
    assert os.listdir(tmp_path) == []


def test_blocks_that_no_disk_has(tmp_path: Path) -> None:
    with ArrivingStorage([Drive(str(tmp_path / "disk"))], [[[4096, 0, 0]]]) as storage:
        good = Blocks(0, 4096, 0, 1, memoryview(b"x" * 4096))
        storage.take(memoryview(good.head() + b"x" * 4096))
        for bad in (
            good._replace(file=1).head() + b"x" * 4096,
            good._replace(first=1).head() + b"x" * 4096,
            good._replace(pieces=17).head() + b"x" * 4096,
            good._replace(size=1 << 60).head() + b"x" * 4096,
            good.head() + b"x" * 4095,
            good.head()[:-1],
        ):
            with pytest.raises(ProtocolError):
                storage.take(memoryview(bad))
        for states in ([], [[1, 4096, 0, b""]], [[0, 0, 0, b""]], [[0, 4096, -1, b""]], [7]):
            with pytest.raises(ProtocolError):
                storage.verify(states)
        with pytest.raises(MigrationError, match="its digest"):
            storage.verify([[0, 4096, 0, bytes(32)]])


def test_a_source_that_sends_disks_of_which_it_has_said_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(content())
    with made(Drive(str(disk))) as machine:

        def send(point: Point) -> None:
            if point is Point.SOURCE_ACCEPTED:
                block = Blocks(0, _SIZE, 0, 1, memoryview(bytes(PIECE)))
                channels[-1].send_raw(Kind.BLOCKS, (block.head(), b"x" * PIECE))

        channels = list[Channel]()
        with receiving(place_of("unix", tmp_path), {"drives": [Drive(str(disk))]}) as there:
            assert isinstance(there, Receiving)
            move = outgoing(machine, there, reached=send)
            connect = move._connect
            move._connect = lambda: channels.append(connect()) or channels[-1]  # type: ignore[func-returns-value]
            with pytest.raises(MigrationError, match="of which it has said nothing"):
                move.run()
    assert disk.read_bytes() == content()
