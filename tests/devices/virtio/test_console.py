"""The console device: output and input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.devices.virtio.console import ROOM, Console, ConsolePort
from tests.devices.virtio.driver import Rig

RECEIVE, TRANSMIT = range(2)


@pytest.fixture
def sent() -> bytearray:
    return bytearray()


@pytest.fixture
def rig(sent: bytearray) -> Iterator[Rig]:
    one = Rig(Console(sent.append))
    yield one
    one.close()


def wait_for(rig: Rig, queue: int, size: int, head: int = 0) -> int:
    """Give the device a buffer; return where it is."""
    [place] = rig.chain(queue, [], [size], head)
    rig.make_available(queue, head)
    rig.notify(queue)
    return place


def port_of(rig: Rig) -> ConsolePort:
    assert isinstance(rig.device, Console)
    return ConsolePort(rig.device, rig.transport)


def test_output_is_transmitted(rig: Rig, sent: bytearray) -> None:
    rig.start()
    assert rig.ask(TRANSMIT, [b"Hello, ", b"world"], [])[0] == 0
    assert sent == b"Hello, world"


def test_a_byte_without_a_queue(rig: Rig, sent: bytearray) -> None:
    rig.w(0x108, ord("!"))
    rig.w(0x100, ord("?"))
    assert sent == b"!"


def test_input_waits_until_a_buffer_is_there(rig: Rig) -> None:
    port = port_of(rig)
    rig.start()
    assert not port.expects_input and port.room == ROOM
    place = wait_for(rig, RECEIVE, 4)
    assert port.expects_input
    port.push(b"abcdef")
    assert rig.read(place, 4) == b"abcd" and rig.line.level
    assert not port.expects_input and port.arrived == 6 and port.room == ROOM - 2
    place = wait_for(rig, RECEIVE, 4, 1)
    assert rig.read(place, 2) == b"ef" and rig.used(RECEIVE) == [(0, 4), (1, 2)]
    assert not port.expects_input
    wait_for(rig, RECEIVE, 4, 2)
    assert port.expects_input


def test_input_that_was_not_read_is_state(rig: Rig, sent: bytearray) -> None:
    rig.start()
    port_of(rig).push(b"later")
    again = Rig(Console(sent.append))
    again.transport.restore(rig.transport.save())
    assert again.device.save() == {"received": b"later", "arrived": 5}
    again.close()


def test_a_queue_that_is_damaged_expects_nothing(rig: Rig) -> None:
    rig.start()
    rig.write(rig.place(RECEIVE)[1] + 2, b"\x63\x00")
    assert not port_of(rig).expects_input
