"""What a guest has flushed survives a failure of the host that loses or reorders all that was not flushed."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from dbt.devices.virtio.block import Block
from dbt.host.disk_media import OpenDrive
from dbt.host.drive import Drive
from tests.devices.virtio.driver import F_VERSION_1, Rig
from tests.host.host_crash import Recorded, after_crash
from tests.host.qcow2_images import small_content, small_image

_SECTOR, _SECTORS = 512, 130
_OUT, _FLUSH, _WRITE_ZEROES = 1, 4, 13
_F_FLUSH, _F_CONFIG_WCE = 1 << 9, 1 << 11


class Content:
    """What may be in each sector: what was there when the guest flushed last, and all that it has written since."""

    def __init__(self, data: bytes) -> None:
        self._possible = [{data[at : at + _SECTOR]} for at in range(0, len(data), _SECTOR)]
        self._newest = [next(iter(one)) for one in self._possible]

    def write(self, sector: int, data: bytes) -> None:
        for at in range(0, len(data), _SECTOR):
            self._newest[sector + at // _SECTOR] = piece = data[at : at + _SECTOR]
            self._possible[sector + at // _SECTOR].add(piece)

    def flush(self) -> None:
        self._possible = [{newest} for newest in self._newest]

    def check(self, found: bytes) -> None:
        for sector, possible in enumerate(self._possible):
            assert found[sector * _SECTOR :][:_SECTOR] in possible, f"sector {sector}"


def request(rig: Rig, kind: int, sector: int, data: bytes) -> None:
    out = [struct.pack("<IIQ", kind, 0, sector), *([data] if data else [])]
    assert rig.ask(0, out, [1]) == (1, b"\0")


@pytest.mark.parametrize("caches", [True, False], ids=["flushes", "without a cache"])
@pytest.mark.parametrize("kind", ["raw", "overlay", "qcow2"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_flushed_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, caches: bool, seed: int
) -> None:
    random, image, overlay = Random(seed), tmp_path / "image", tmp_path / "overlay"
    content = small_content() if kind == "qcow2" else random.randbytes(_SECTORS * _SECTOR)
    image.write_bytes(small_image() if kind == "qcow2" else content)
    format_ = "qcow2" if kind == "qcow2" else "raw"
    drive = Drive(str(image), overlay="" if kind == "raw" else str(overlay), format=format_)
    changing = image if kind == "raw" else overlay
    disk = OpenDrive(drive)
    initial, recorded = changing.read_bytes(), Recorded(monkeypatch)
    rig, model = Rig(Block(disk.medium)), Content(content)
    rig.start(F_VERSION_1 | (_F_FLUSH | _F_CONFIG_WCE if caches else 0))
    for _ in range(60):
        before = len(recorded.steps)
        flushes = _request_something(rig, model, random, caches)
        for crash in range(before + 1, len(recorded.steps)):
            _check(drive, changing, tmp_path, after_crash(initial, recorded.steps[:crash], random), model)
        if flushes or not caches:
            model.flush()
        _check(drive, changing, tmp_path, after_crash(initial, recorded.steps, random), model)
    disk.close()
    rig.close()


def _request_something(rig: Rig, model: Content, random: Random, caches: bool) -> bool:
    """Send a request to write, or to flush. Return whether it was the latter."""
    sector = random.randrange(_SECTORS - 8)
    count = random.randrange(1, 9)
    if caches and random.random() < 0.2:
        request(rig, _FLUSH, 0, b"")
        return True
    if random.random() < 0.2:
        request(rig, _WRITE_ZEROES, 0, struct.pack("<QII", sector, count, 0))
        model.write(sector, bytes(count * _SECTOR))
    else:
        data = random.randbytes(count * _SECTOR)
        request(rig, _OUT, sector, data)
        model.write(sector, data)
    return False


def _check(drive: Drive, changing: Path, folder: Path, found: bytes, model: Content) -> None:
    """Check what is on a disk whose file has become ``found``."""
    after = folder / "after"
    after.write_bytes(found)
    if drive.overlay:
        with_changes = OpenDrive(drive._replace(overlay=str(after)))
    else:
        with_changes = OpenDrive(Drive(str(after), read_only=True))
    model.check(with_changes.medium.read(0, _SECTORS * _SECTOR))
    with_changes.close()
