"""Writing to qcow2 images: qemu-img finds them in order and with the same content, after failures of the host too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random

import pytest

from dbt.host.disk import DiskError, RawFile
from dbt.host.disk_media import OpenDrive
from dbt.host.drive import Backing, Drive
from dbt.host.qcow2_writer import WritableQcow2File, close_open_images
from tests.host.host_crash import Recorded, after_crash
from tests.host.qcow2_images import NEEDS_QEMU_IMG, qemu_img, small_image, some_disk

pytestmark = NEEDS_QEMU_IMG
_SIZE = 3 << 20
_SECTOR = 512

#: How an image is made: options of `qemu-img convert`, or of `qemu-img create` on a raw disk.
_CONVERTED = [
    (),
    ("-o", "compat=0.10"),
    ("-c",),
    ("-c", "-o", "compression_type=zstd"),
    ("-o", "cluster_size=256k"),
    ("-o", "preallocation=metadata"),
]


def found_by_qemu(image: Path) -> tuple[int, int]:
    """Return how many errors and how many lost clusters qemu-img finds."""
    command = ["qemu-img", "check", "-f", "qcow2", "--output=json", str(image)]
    found = json.loads(subprocess.run(command, check=False, capture_output=True, timeout=60).stdout)
    return found.get("corruptions", 0) + found["check-errors"], found.get("leaks", 0)


def content_by_qemu(image: Path) -> bytes:
    flat = image.with_suffix(".flat")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, flat)
    return flat.read_bytes()


def write_something(file: WritableQcow2File, model: bytearray, random: Random) -> None:
    """Write some sectors, or zeros, anywhere."""
    count = random.choice((1, 1, 8, 8, 100, 300))
    at = random.randrange(len(model) // _SECTOR - count) * _SECTOR
    data = random.randbytes(count * _SECTOR) if random.random() < 0.8 else bytes(count * _SECTOR)
    file.write(at, data)
    model[at : at + len(data)] = data


@pytest.mark.parametrize("options", _CONVERTED)
def test_qemu_finds_nothing_wrong(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw, image, random = tmp_path / "raw", tmp_path / "image", Random(4)
    model = bytearray(some_disk(raw, _SIZE))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, raw, image)
    for _ in range(3):
        with WritableQcow2File(str(image)) as file:
            for number in range(25):
                write_something(file, model, random)
                if number % 7 == 6:
                    file.flush()
                assert file.read(0, _SIZE) == model
        assert found_by_qemu(image) == (0, 0)
        assert content_by_qemu(image) == model


def test_an_image_on_another_one(tmp_path: Path) -> None:
    """Clusters are completed by what is behind them, and that does not change."""
    raw, image, random = tmp_path / "raw", tmp_path / "image", Random(4)
    model = bytearray(some_disk(raw, _SIZE)) + bytes(1 << 20)
    qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", image, len(model))
    before = raw.read_bytes()
    disk = OpenDrive(Drive(str(image), format="qcow2", backing=(Backing(str(raw)),)))
    assert isinstance(disk.file, WritableQcow2File)
    for _ in range(40):
        write_something(disk.file, model, random)
    disk.close()
    assert raw.read_bytes() == before
    assert found_by_qemu(image) == (0, 0)
    assert content_by_qemu(image) == model


def test_new_blocks_of_counts(tmp_path: Path) -> None:
    """The file grows over the end of what a block of reference counts is for, by many tables at a time."""
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "64T")
    with image.open("r+b") as grown:
        grown.truncate((32768 - 5) << 16)  # the first block is for 32768 clusters; those up to here are lost
    wanted = {number << 41: b"%5d" % number * 103 for number in range(30)}
    with WritableQcow2File(str(image)) as file:
        for at, data in wanted.items():
            file.write(at, data[:_SECTOR])
    assert found_by_qemu(image) == (0, 0)
    with WritableQcow2File(str(image)) as file:
        for at, data in wanted.items():
            assert file.read(at, _SECTOR) == data[:_SECTOR]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [(), ("-c",)])
def test_a_failure_of_the_host_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], seed: int
) -> None:
    """The image is in order but for lost clusters, and each sector has what was flushed, or was written since."""
    raw, image, random = tmp_path / "raw", tmp_path / "image", Random(seed)
    model = bytearray(some_disk(raw, _SIZE, seed))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, raw, image)
    initial, recorded = image.read_bytes(), Recorded(monkeypatch)
    file = WritableQcow2File(str(image))
    states = [(0, bytes(model))]  # the steps after which a content was flushed
    for _ in range(4):
        for _ in range(4):
            write_something(file, model, random)
        file.flush()
        states.append((len(recorded.steps), bytes(model)))
    file.close_unflushed()
    monkeypatch.undo()
    crashes = random.sample(range(len(recorded.steps) + 1), 12)
    for crash in (*crashes, *(end for end, _ in states)):
        image.write_bytes(after_crash(initial, recorded.steps[:crash], random))
        errors, _ = found_by_qemu(image)
        assert errors == 0, f"after step {crash}"
        done = max(number for number, (end, _) in enumerate(states) if end <= crash)
        before, after = states[done][1], states[min(done + 1, len(states) - 1)][1]
        written = {data for step in recorded.steps[:crash] if step for data in _sectors(step[1])}
        found = content_by_qemu(image)
        for at in range(0, _SIZE, _SECTOR):
            sector = found[at : at + _SECTOR]
            assert sector in (before[at : at + _SECTOR], after[at : at + _SECTOR]) or sector in written, hex(at)


def _sectors(data: bytes) -> set[bytes]:
    return {data[at : at + _SECTOR] for at in range(0, len(data), _SECTOR)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "cluster_size=32k"), "has clusters of 32768 bytes, less than 64 KiB"),
        (("-o", "refcount_bits=1"), "has reference counts of 1 bits"),
    ],
)
def test_what_is_not_written(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", *options, image, "1M")
    with pytest.raises(DiskError, match=message):
        WritableQcow2File(str(image))
    RawFile(str(image), writable=True).close()


def test_snapshots_and_bitmaps_are_not_written(tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, "1M")
    qemu_img("bitmap", "--add", "-f", "qcow2", image, "changes")
    with pytest.raises(DiskError, match="has bitmaps or the like"):
        WritableQcow2File(str(image))
    qemu_img("bitmap", "--remove", "-f", "qcow2", image, "changes")
    qemu_img("snapshot", "-c", "one", image)
    with pytest.raises(DiskError, match="has snapshots in it"):
        WritableQcow2File(str(image))


class FullHost:
    """A host that fails at one write, of which there are ``left`` before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        write = RawFile.write

        def fail(file: RawFile, offset: int, data: bytes) -> None:
            self.left -= 1
            if self.left == -1:
                raise OSError(28, "No space left on device")
            write(file, offset, data)

        self.left = left
        monkeypatch.setattr(RawFile, "write", fail)


def test_a_full_host_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at any write, and then it works again: the next flush has everything."""
    image, random = tmp_path / "image", Random(1)
    failures = 0
    for failing in range(12):
        qemu_img("create", "-f", "qcow2", image, _SIZE)
        model = bytearray(_SIZE)
        with WritableQcow2File(str(image)) as file:
            write_something(file, model, random)
            FullHost(monkeypatch, failing)
            at = random.randrange(40) * 65536
            for _ in range(2):
                try:
                    file.write(at, b"again" * 20_000)
                    file.flush()
                except OSError:
                    failures += 1
            monkeypatch.undo()
            model[at : at + 100_000] = b"again" * 20_000
        assert found_by_qemu(image)[0] == 0
        assert content_by_qemu(image) == model
    assert failures > 6


def test_an_image_that_nobody_closes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu_img("create", "-f", "qcow2", image, _SIZE)
    file = WritableQcow2File(str(image))
    file.write(5 << 16, b"end!" * 128)
    del file
    assert content_by_qemu(image)[5 << 16 :][:512] == b"end!" * 128
    kept = WritableQcow2File(str(image))
    kept.write(7 << 16, b"exit" * 128)
    assert close_open_images() == [] and kept.is_closed
    assert content_by_qemu(image)[7 << 16 :][:512] == b"exit" * 128


def test_damaged_images_are_not_written_to(tmp_path: Path) -> None:
    """Nothing outside the file, and no crash, whatever the tables say."""
    path = tmp_path / "image"
    random = Random(5)
    whole = small_image(3, 16)
    opened = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(random.choice((1, 3, 10))):
            at = random.choice((48, 56, 60, 64, 65536, 131072)) + 8 * random.randrange(3)
            data[at : at + 8] = random.choice((0, 1, 1 << 62, 65536, 131072, 1 << 63 | 196608)).to_bytes(8, "big")
        path.write_bytes(data)
        try:
            file = WritableQcow2File(str(path))
        except DiskError as error:
            assert "\n" not in str(error)
            continue
        opened += 1
        try:
            for _ in range(10):
                file.write(random.randrange(file.size // _SECTOR - 8) * _SECTOR, b"w" * 4096)
                file.flush()
        except OSError as error:
            assert "\n" not in str(error)
        file.close_unflushed()
        assert path.stat().st_size < len(whole) + (40 << 16)
    assert opened > 10
