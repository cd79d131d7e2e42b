"""Virtio devices on the board versatile: where they are, their interrupts, and how a kernel is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fdt
import pytest

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa
from dbt.board.board import Board, BoardWiring
from dbt.board.devicetree import Chosen, board_tree
from dbt.board.loader import ImageError
from dbt.board.versatile import INTERRUPT_CONTROLLER, SECONDARY_CONTROLLER, VIRTIO, build_board
from dbt.engine.tier import JitMode
from dbt.host.drive import Drive
from dbt.memory.ram import RamLayout, RamRegion
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.devices.virtio.every_device import attached_devices
from tests.devices.virtio.guest import ORIGIN, SECTOR, copier
from tests.devices.virtual_time import Line, VirtualTime
from tests.vm.programs import MODES

SLOT = 0x200
_RAM = [RamRegion(Gpa(0), 1 << 20), RamRegion(Gpa(ORIGIN), 16 << 20)]
_COUNT = 8


@dataclass
class Rig:
    """A board with one device of each kind."""

    time: VirtualTime = field(default_factory=VirtualTime)
    irq: Line = field(default_factory=Line)
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        wiring = BoardWiring(
            bytearray().append,
            RamLayout.of(1 << 20),
            self.time.timeline,
            self.irq,
            Line(),
            lambda: None,
            0,
            attached=attached_devices(),
        )
        self.board = build_board(wiring)

    def read(self, gpa: int) -> int:
        return self.board.bus.read(Gpa(gpa), 4)

    def write(self, gpa: int, value: int) -> None:
        self.board.bus.write(Gpa(gpa), 4, value)

    def break_device(self, slot: int) -> None:
        """Have a device ask for a reset, because a queue is where there is no RAM."""
        base = VIRTIO + SLOT * slot
        registers = ((0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11))
        queue = ((0x30, 0), (0x38, 8), (0x44, 1), (0x70, 15), (0x50, 0))
        for offset, value in (*registers, *queue):
            self.write(base + offset, value)
        assert self.read(base + 0x70) & 64


def test_devices_are_where_the_board_has_nothing() -> None:
    rig = Rig()
    found = [rig.read(VIRTIO + SLOT * slot + 8) for slot in range(32)]
    assert found[31] == 2 and found[30] == 2 and found[29] == 1 and not any(found[:20])
    assert rig.read(VIRTIO) == 0x74726976


def test_devices_share_interrupts() -> None:
    rig = Rig()
    rig.write(INTERRUPT_CONTROLLER + 0x10, 1 << 31)
    rig.write(SECONDARY_CONTROLLER + 8, 0xF << 27)
    for slot in (31, 27, 30):
        rig.break_device(slot)
    assert rig.irq.level and rig.read(SECONDARY_CONTROLLER) == 1 << 30 | 1 << 29
    for slot, level in ((31, True), (30, True), (27, False)):
        rig.write(VIRTIO + SLOT * slot + 0x64, 3)
        assert rig.irq.level == level
    assert rig.read(SECONDARY_CONTROLLER + 4) == 0
    rig.write(SECONDARY_CONTROLLER + 0x20, 1 << 30)  # passed on to the primary controller
    rig.write(SECONDARY_CONTROLLER + 0xC, 0xF << 27)
    rig.write(INTERRUPT_CONTROLLER + 0x10, 1 << 30)
    rig.break_device(31)
    assert rig.irq.level and rig.read(INTERRUPT_CONTROLLER) == 1 << 30


def made(disk: Path, tier: TierName = "threaded", jit: JitMode = "off", **more: Any) -> Machine:
    drive = Drive(str(disk), snapshot=True)
    machine = Machine(
        **{"memory": _RAM, "tier": tier, "jit": jit, "drives": [drive], "console": CaptureConsole(), **more}
    )
    machine.load_bytes(copier(_COUNT, VIRTIO + 31 * SLOT), base=ORIGIN)
    return machine


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"".join(bytes([number]) * SECTOR for number in range(1, 17)))
    return path


def test_a_program_uses_a_disk_in_every_tier(disk: Path) -> None:
    ends = set()
    for tier, jit in MODES:
        with made(disk, tier, jit) as machine:
            assert machine.run(fuel=10**6).exit_code == 0
            ends.add((machine.icount, state_hash(machine)))
    [(end, wanted)] = ends
    for part in range(1, 6):
        with made(disk) as machine:
            machine.run(fuel=end * part // 6)
            with machine.save() as state:
                drives = [Drive(str(disk), snapshot=True)]
                again = Machine.restore(state, drives=drives, tier="threaded", console=CaptureConsole())
            with again, machine.fork(console=CaptureConsole()) as fork:
                for one in (again, fork):
                    assert one.run(fuel=10**6).exit_code == 0 and state_hash(one) == wanted


def test_the_board_without_devices_has_no_slots() -> None:
    with Machine(1 << 20, console=CaptureConsole()) as machine:
        assert not machine.board.bus.has_device(VIRTIO, 4)


def test_the_tree_has_them(tmp_path: Path) -> None:
    tree = fdt.parse_dtb(board_tree(Chosen(1 << 20)))
    first, *_, last = [node for node in tree.get_node("/amba").nodes if node.name.startswith("virtio")]
    assert first.name == "virtio_mmio@10033e00" and last.name == "virtio_mmio@10030000"
    assert first.get_property("reg").data == [0x10033E00, SLOT]
    assert first.get_property("interrupts").value == 30 and last.get_property("interrupts").value == 27
    without = fdt.parse_dtb(board_tree(Chosen(1 << 20), lambda gpa: gpa != VIRTIO))
    assert not any("virtio" in node.name for node in without.get_node("/amba").nodes)


@pytest.mark.parametrize("append", ["", "virtio_mmio.device=0x200@0x10033e00:30"])
def test_who_does_not_tell_a_kernel_of_them_is_told(tmp_path: Path, append: str) -> None:
    """A kernel with ATAGs, one that is no Linux, and one with a tree of the user's."""
    kernel, tree = tmp_path / "kernel", tmp_path / "tree"
    kernel.write_bytes((0xEAFFFFFE).to_bytes(4, "little") * 64)
    tree.write_bytes(board_tree(Chosen(1 << 20), lambda gpa: gpa != VIRTIO))
    with Machine(1 << 20, devices=["rng"], console=CaptureConsole()) as machine:
        for more in ({"atags": True}, {}, {"dtb": tree}):
            if append:
                machine.load_kernel(kernel, append=append, **more)
                continue
            with pytest.raises(ImageError, match="kernel of the machine's virtio devices") as caught:
                machine.load_kernel(kernel, **more)
            assert "virtio_mmio.device=" in caught.value.remedy
