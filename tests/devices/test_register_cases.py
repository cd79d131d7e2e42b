"""Our devices against QEMU's answers, register by register (:mod:`tests.devices.register_cases`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.abi.exits import LeaveGuest
from dbt.board.board import BoardWiring
from dbt.board.boards import BOARDS
from dbt.devices.output import unplugged
from dbt.devices.virtio.attached import Attached
from dbt.devices.virtio.balloon import Balloon
from dbt.devices.virtio.console import Console
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.rng import Rng
from dbt.memory.dma import Dma
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion
from tests.devices import register_cases
from tests.devices.register_cases import ABORTED, FILES, IDS, devices_of, disk_content, parse, recorded
from tests.devices.virtio.disks import MemoryFile, direct
from tests.devices.virtio.every_device import network_card
from tests.devices.virtio.shared import shared_directory
from tests.devices.virtual_time import VirtualTime

EPOCH = 1_767_225_600  # 2026-01-01 00:00:00
_MAKE: dict[str, Callable[[Dma], VirtioDevice]] = {
    "disk": lambda memory: direct(MemoryFile(bytearray(disk_content()))),
    "rng": lambda memory: Rng(0),
    "balloon": Balloon,
    "net": lambda memory: network_card([]),
    "console": lambda memory: Console(unplugged),
    "9p": lambda memory: shared_directory(),
}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_registers_are_as_qemu_has_them(path: Path) -> None:
    def no_reset() -> None:
        raise AssertionError("the board was reset")

    def no_line(level: bool) -> None:
        pass

    text, time = path.read_text(), VirtualTime()
    model = BOARDS[path.parent.name]
    ram = Ram([RamRegion(model.ram_base, 128 << 20)])
    memory = GuestMemory(ram)
    devices = [_MAKE[name](Dma(memory)) for name in devices_of(text)]
    wiring = BoardWiring(
        *(lambda _: None, ram.layout, time.timeline, no_line, no_line, no_reset, EPOCH),
        holes_read_zero=model.holes_read_zero,
        attached=Attached(devices, Dma(memory)) if devices else None,
    )
    bus = model.build(wiring).bus
    memory.bus = bus
    for access in parse(text):
        gva, size = Gva(access.gpa), access.size
        assert access.value is not None, f"{path.name} {access}: not recorded"
        if access.kind == "w":
            with suppress(LeaveGuest):  # where there is nothing
                memory.store(gva, size, access.value, Gva(0))
        elif access.kind == "p":
            while memory.load(gva, size, Gva(0)) != access.value:
                due = time.timeline.next_tick
                assert due is not None, f"{path.name} {access}: nothing will happen any more"
                time.advance(due - time.tick)
        else:
            try:
                value = memory.load(gva, size, Gva(0))
            except LeaveGuest:
                value = ABORTED
            assert value == access.value, f"{path.name} {access} gives {value:#x}, should be {access.value:#x}"
    ram.close()


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_what_is_written_down_is_what_qemu_answers(path: Path) -> None:
    text = path.read_text()
    assert recorded(text, path.parent.name) == text


def test_qemu_is_asked_again_if_its_clock_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads after the host's clock has come to another second may be wrong."""
    answers = iter([[1], [2], [3]])
    monkeypatch.setattr(register_cases, "under_qemu", lambda *_: next(answers))
    monkeypatch.setattr(time, "time", iter([0.9, 1.1, 1.2, 1.3, 1.9, 2.0]).__next__)
    assert recorded("r 0x0 ->\n", "versatile") == "r 0x0 -> 0x00000002\n"
    assert recorded("r 0x0 -> 0x00000003\n", "versatile") == "r 0x0 -> 0x00000003\n"
