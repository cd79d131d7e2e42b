"""The console device: output, input, and the messages that Linux' driver exchanges with it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from dbt.devices.virtio.console import ROOM, Console, ConsolePort
from tests.devices.virtio.driver import F_VERSION_1, Rig

MULTIPORT = 1 << 1
RECEIVE, TRANSMIT, CONTROL_IN, CONTROL_OUT = range(4)
ADD, CONSOLE, OPEN = (struct.pack("<IHH", 0, event, 1) for event in (1, 4, 6))
DEVICE_READY, PORT_READY, PORT_OPEN = 0, 3, 6


@pytest.fixture
def sent() -> bytearray:
    return bytearray()


@pytest.fixture
def rig(sent: bytearray) -> Iterator[Rig]:
    one = Rig(Console(sent.extend))
    yield one
    one.close()


def tell(rig: Rig, event: int, port: int = 0, value: int = 1) -> None:
    rig.ask(CONTROL_OUT, [struct.pack("<IHH", port, event, value)], [])


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
    rig.start(F_VERSION_1 | MULTIPORT)
    assert rig.ask(TRANSMIT, [b"Hello, ", b"world"], [])[0] == 0
    assert sent == b"Hello, world"


def test_a_byte_without_a_queue(rig: Rig, sent: bytearray) -> None:
    rig.w(0x108, ord("!"))
    rig.w(0x100, ord("?"))
    assert sent == b"!"


def test_a_port_is_announced_and_opened(rig: Rig) -> None:
    rig.start(F_VERSION_1 | MULTIPORT)
    places = [wait_for(rig, CONTROL_IN, 32, head) for head in range(4)]
    tell(rig, DEVICE_READY)
    assert rig.read(places[0], 8) == ADD and rig.used(CONTROL_IN) == [(0, 8)]
    tell(rig, PORT_READY)
    assert [rig.read(place, 8) for place in places[1:3]] == [CONSOLE, OPEN]
    tell(rig, PORT_READY, port=1)
    tell(rig, 77)
    assert len(rig.used(CONTROL_IN)) == 3


def test_input_waits_until_the_port_is_open_and_a_buffer_is_there(rig: Rig) -> None:
    """Linux drops what arrives before."""
    port = port_of(rig)
    rig.start(F_VERSION_1 | MULTIPORT)
    place = wait_for(rig, RECEIVE, 4)
    assert not port.expects_input
    tell(rig, PORT_OPEN)
    assert port.expects_input and port.room == ROOM
    port.push(b"abcdef")
    assert rig.read(place, 4) == b"abcd" and rig.line.level
    assert not port.expects_input and port.arrived == 6 and port.room == ROOM - 2
    place = wait_for(rig, RECEIVE, 4, 1)
    assert rig.read(place, 2) == b"ef" and rig.used(RECEIVE) == [(0, 4), (1, 2)]
    assert not port.expects_input
    wait_for(rig, RECEIVE, 4, 2)
    assert port.expects_input
    tell(rig, PORT_OPEN, value=0)
    assert not port.expects_input


def test_a_driver_without_messages_has_an_open_port(rig: Rig) -> None:
    port = port_of(rig)
    rig.start(F_VERSION_1, [RECEIVE, TRANSMIT])
    place = wait_for(rig, RECEIVE, 16)
    assert port.expects_input
    port.push(b"x")
    assert rig.read(place, 1) == b"x"


def test_messages_that_nobody_reads_do_not_pile_up(rig: Rig) -> None:
    rig.start(F_VERSION_1 | MULTIPORT)
    for _ in range(200):
        tell(rig, PORT_READY)
    state = rig.transport.save()
    messages = rig.device.save()["messages"]
    assert isinstance(messages, bytes) and len(messages) == 64 * 8
    rig.transport.restore(state)


def test_input_that_was_not_read_is_state(rig: Rig, sent: bytearray) -> None:
    rig.start()
    port_of(rig).push(b"later")
    again = Rig(Console(sent.extend))
    again.transport.restore(rig.transport.save())
    assert again.device.save() == rig.device.save() and again.device.save()["received"] == b"later"
    again.close()


def test_a_queue_that_is_damaged_expects_nothing(rig: Rig) -> None:
    rig.start()
    rig.write(rig.place(RECEIVE)[1] + 2, b"\x63\x00")
    assert not port_of(rig).expects_input


def test_output_is_taken_when_the_driver_notifies(rig: Rig, sent: bytearray) -> None:
    rig.size = 128
    rig.start(F_VERSION_1)
    for head in range(100):
        rig.chain(TRANSMIT, [bytes([head])], [], head)
    rig.make_available(TRANSMIT, *range(100))
    rig.notify(TRANSMIT)
    assert sent == bytes(range(64)) and len(rig.used(TRANSMIT)) == 64 and rig.line.level
    again = Rig(Console(sent.extend), size=128)
    again.write(0x40000000, rig.read(0x40000000, 1 << 20))
    again.transport.restore(rig.transport.save())
    again.close()
    rig.time.advance(1)
    assert sent == bytes(range(100)) and rig.used(TRANSMIT) == [(head, 0) for head in range(100)]
