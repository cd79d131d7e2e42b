"""Our devices against QEMU's answers, register by register (:mod:`tests.devices.register_cases`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dbt.abi.addresses import Gpa
from dbt.board.boards import BOARDS
from dbt.board.timeline import Timeline
from dbt.memory.ram import RamLayout
from tests.devices.register_cases import FILES, IDS, parse, recorded

EPOCH = 1_767_225_600  # 2026-01-01 00:00:00


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_registers_are_as_qemu_has_them(path: Path) -> None:
    def no_reset() -> None:
        raise AssertionError("the board was reset")

    def no_line(level: bool) -> None:
        pass

    model = BOARDS[path.parent.name]
    bus = model.build(
        lambda _: None,
        RamLayout.of(128 << 20, model.ram_base),
        Timeline(lambda: 0),
        no_line,
        no_line,
        no_reset,
        EPOCH,
        holes_read_zero=True,
    ).bus
    for access in parse(path.read_text()):
        assert access.value is not None, f"{path.name} {access}: not recorded"
        if access.write:
            bus.write(Gpa(access.gpa), access.size, access.value)
        else:
            value = bus.read(Gpa(access.gpa), access.size)
            assert value == access.value, f"{path.name} {access} gives {value:#x}, should be {access.value:#x}"


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_what_is_written_down_is_what_qemu_answers(path: Path) -> None:
    text = path.read_text()
    assert recorded(text, path.parent.name) == text
