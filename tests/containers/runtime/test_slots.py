"""A container's disks are in slots that were empty in the template: its guest mounts them when it knows their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dbt.containers.runtime.disk import make_disk
from dbt.containers.runtime.root_request import stopped_request
from dbt.containers.runtime.spec import Process, Spec
from dbt.devices.receivers import numbered_name
from dbt.devices.virtio.block import Block
from dbt.host.console import CaptureConsole
from dbt.host.drive import Drive
from dbt.host.net_option import NOWHERE, Net
from dbt.hypervisor.carrier import Facts
from dbt.linux.console import ProgramConsole
from dbt.linux.container_request import ContainerRequest
from dbt.linux.template import CARDS, Hardware, container_shares, read_template
from dbt.vm.machine import Machine
from tests.containers.runtime.boxes import words_layer

_STEP = 20_000


class Late(NamedTuple):
    """A guest that has not been told of its disks, and what tells it of one: of the layers it is number 1."""

    machine: Machine
    console: ProgramConsole
    tell: Callable[[int], None]

    def ends_within(self, seconds: int) -> bool:
        """Let the guest execute for so long by its own time, or until it has done its request or says why not."""
        end = self.machine.vcpu.now() + seconds * Facts.of(self.machine).ticks_per_second
        while self.console.status is None and self.console.failure is None:
            if self.machine.vcpu.now() >= end:
                return False
            self.machine.run(fuel=_STEP)
        return True


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    disk = str(tmp_path / "disk.img")
    make_disk(disk)
    return Spec("0" * 64, "box", (words_layer(tmp_path),), disk, Process(("words",)))


@pytest.fixture
def late(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    console = ProgramConsole(CaptureConsole())
    drives = [Drive(spec.disk), Drive(spec.layers[0], read_only=True)]
    nets = [Net(NOWHERE)] * CARDS
    with read_template(Hardware(for_container=True), lambda said: None) as template, monkeypatch.context() as patch:
        patch.setattr(Block, "arrive", lambda block, data: None)
        machine = Machine.restore(template, drives=drives, nets=nets, shares=container_shares({}), console=console)
    receivers = machine._parts.peripherals.board.receivers
    with machine:
        yield Late(machine, console, lambda number: receivers[numbered_name(Block.receiver, number)]([b""]))


def test_disks_are_mounted_however_late_the_kernel_hears_of_them(late: Late, spec: Spec) -> None:
    late.console.start(stopped_request(spec))
    assert not late.ends_within(seconds=1)
    late.tell(1)
    assert not late.ends_within(seconds=1)
    late.tell(0)
    assert late.ends_within(seconds=10)
    assert late.console.failure is None
    assert late.console.status == 0


def test_a_disk_that_never_comes_is_named(late: Late) -> None:
    request = ContainerRequest()
    request.await_disk("/dev/vdb", 1)
    request.job("c")
    late.console.start(request)
    assert late.ends_within(seconds=30)
    assert late.console.explain_failure().endswith("(the disk /dev/vdb of 1 bytes): No medium found")
