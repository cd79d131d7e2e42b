"""Overlay files: what was flushed is there whatever of the rest gets to the host's disk, and in whatever order."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from dbt.devices.medium import BLOCK
from dbt.host.disk import DiskError, RawFile
from dbt.host.overlay import OverlayFile
from tests.host.host_crash import Recorded, after_crash

_BLOCKS = 16


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(Random(2).randbytes(_BLOCKS * BLOCK - 1000))
    return path


def block(number: int) -> bytes:
    return bytes([number]) * BLOCK


def loaded(path: Path, image: Path) -> dict[int, bytes]:
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        return overlay.load()


def test_what_was_stored_is_loaded(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "overlay"
    assert loaded(path, image) == {}
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        assert overlay.load() == {}
        overlay.store({3: block(1), 15: block(2)})
        overlay.store({3: block(1), 15: block(3), 0: block(4)})
    assert loaded(path, image) == {3: block(1), 15: block(3), 0: block(4)}
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        overlay.load()
        overlay.store({0: block(4), 1: block(5)})  # as after the machine has gone back
    assert loaded(path, image) == {0: block(4), 1: block(5)}


def test_a_loaded_block_is_not_written_again(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "overlay"
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        overlay.store({3: block(1)})
    writes: list[int] = []
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        changed = overlay.load()
        monkeypatch.setattr(RawFile, "write", lambda self, offset, data: writes.append(offset))
        overlay.store(changed)
        assert not writes
        overlay.store({**changed, 4: block(4)})
        assert len(writes) == 2


@pytest.mark.parametrize("seed", range(12))
def test_a_failure_of_the_host_at_any_point(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Of what was not flushed, anything may be on the disk, in pieces of a sector. What was stored is there, or for a
    block that was being stored again, sectors of both.
    """
    random, path = Random(seed), tmp_path / "overlay"
    with RawFile(str(image), writable=False) as base, OverlayFile(str(path), base) as overlay:
        initial = path.read_bytes()
        recorded = Recorded(monkeypatch)
        stored: list[tuple[int, dict[int, bytes]]] = [(0, {})]
        changed: dict[int, bytes] = {}
        for number in range(6):
            changed = dict(changed)
            for _ in range(random.randrange(1, 5)):
                changed[random.randrange(_BLOCKS)] = block(10 * number + random.randrange(10))
            overlay.store(changed)
            stored.append((len(recorded.steps), changed))
    monkeypatch.undo()
    for crash in range(len(recorded.steps) + 1):
        done = max(index for index, (end, _) in enumerate(stored) if end <= crash)
        before, after = stored[done][1], stored[min(done + 1, len(stored) - 1)][1]
        path.write_bytes(after_crash(initial, recorded.steps[:crash], random))
        found = loaded(path, image)
        assert before.keys() <= found.keys() <= after.keys()
        for number, data in found.items():
            for at in range(0, BLOCK, 512):
                old, new = before.get(number, after[number]), after[number]
                assert data[at : at + 512] in (old[at : at + 512], new[at : at + 512])


def test_what_is_no_overlay_of_the_disk(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "overlay"
    loaded(path, image)
    good = path.read_bytes()
    path.write_bytes(b"x" * 10_000)
    with pytest.raises(DiskError, match="is no overlay"):
        loaded(path, image)
    path.write_bytes(b"")
    with pytest.raises(DiskError, match="is no overlay, but an empty file"):
        loaded(path, image)
    for places in ({0: 9}, {0: 1, 1: 1}, {0: 0xFFFFFFFF}):
        damaged = bytearray(good + bytes(2 * BLOCK))
        for number, place in places.items():
            damaged[BLOCK + 4 * number : BLOCK + 4 * number + 4] = place.to_bytes(4, "little")
        path.write_bytes(damaged)
        with pytest.raises(DiskError, match="is damaged"):
            loaded(path, image)
    path.write_bytes(good)
    assert loaded(path, image) == {}
    image.write_bytes(image.read_bytes())
    with pytest.raises(DiskError, match="has been written since"):
        loaded(path, image)
    with pytest.raises(DiskError, match="cannot make the overlay"):
        loaded(tmp_path / "none" / "overlay", image)


def test_one_machine_at_a_time_has_an_overlay(tmp_path: Path, image: Path) -> None:
    with (
        RawFile(str(image), writable=False) as base,
        OverlayFile(str(tmp_path / "overlay"), base),
        pytest.raises(DiskError, match="another machine uses it"),
    ):
        OverlayFile(str(tmp_path / "overlay"), base)
