"""The switch: who hears what, and what a container cannot do to others or to the service."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from threading import Event, Thread
from time import monotonic

import pytest

from dbt.containers.network import frames
from dbt.containers.network.addresses import mac_of
from dbt.containers.network.interface import Interface
from dbt.containers.network.link import MOST_WAITING, card_pair
from dbt.containers.network.records import OPTION_ICC, Network
from dbt.containers.network.switch import Card, Member, Switch

SUBNET, GATEWAY = IPv4Network("172.18.0.0/16"), IPv4Address("172.18.0.1")
GATEWAY_MAC = mac_of(GATEWAY)


def network(name: str = "net", **options: str) -> Network:
    return Network(name * 8, name, "bridge", 0.0, SUBNET, GATEWAY, options=options)


class Box:
    """A card in a network, and the VM's end of its link."""

    def __init__(self, switch: Switch, number: int, where: Network) -> None:
        ours, self.end = card_pair()
        self.address = SUBNET[number]
        self.mac = mac_of(self.address)
        self.card = Card(ours)
        self.member: Member = switch.join(self.card, where, Interface(0, self.mac, self.address, SUBNET, GATEWAY))

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.end.sendall(struct.pack(">I", len(piece)) + piece)

    async def received(self) -> list[bytes]:
        """Return the frames that come until nothing more does."""
        await asyncio.sleep(0.02)
        try:
            data = self.end.recv(1 << 20)
        except BlockingIOError:
            return []
        found = []
        while data:
            size = int.from_bytes(data[:4], "big")
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        return found

    def packet(self, target: Box | IPv4Address, mac: bytes | None = None, source: IPv4Address | None = None) -> bytes:
        address, to = (target, GATEWAY_MAC) if isinstance(target, IPv4Address) else (target.address, target.mac)
        addresses = (source or self.address).packed + address.packed
        body = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + addresses
        return to + (mac or self.mac) + frames.IPV4 + body + bytes(8)

    def arp(self, target: IPv4Address, mac: bytes | None = None, sender: IPv4Address | None = None) -> bytes:
        kind = b"\x00\x01\x08\x00\x06\x04\x00\x01"
        message = kind + (mac or self.mac) + (sender or self.address).packed + bytes(6) + target.packed
        return frames.BROADCAST + self.mac + frames.ARP + message


@contextmanager
def boxes(**options: str) -> Iterator[list[Box]]:
    switch, where = Switch(), network(**options)
    made = [Box(switch, 2 + number, where) for number in range(3)]
    yield made
    for one in made:
        switch.leave(one.card)
        one.card.link.close()
        one.end.close()


def test_frames_go_to_whom_they_are_for() -> None:
    async def run() -> None:
        with boxes() as (one, two, three):
            one.send(one.packet(two), one.arp(three.address))
            assert await two.received() == [one.packet(two), one.arp(three.address)]
            assert await three.received() == [one.arp(three.address)]
            assert await one.received() == []

    asyncio.run(run())


def test_networks_are_apart() -> None:
    async def run() -> None:
        switch = Switch()
        one, other = Box(switch, 2, network("one")), Box(switch, 3, network("two"))
        one.send(one.packet(other), one.arp(other.address))
        assert await other.received() == []
        switch.join(other.card, network("one"), Interface(0, other.mac, other.address, SUBNET))
        one.send(one.packet(other))
        assert await other.received() == [one.packet(other)]
        switch.leave(other.card)
        one.send(one.packet(other))
        other.send(other.packet(one))
        assert (await other.received(), await one.received()) == ([], [])

    asyncio.run(run())


def test_nobody_speaks_for_another() -> None:
    async def run() -> None:
        with boxes() as (one, two, three):
            forged = [
                one.packet(two, mac=three.mac),
                one.packet(two, mac=GATEWAY_MAC),
                one.packet(two, source=three.address),
                one.packet(two, source=GATEWAY),
                one.arp(two.address, sender=GATEWAY),
                one.arp(two.address, mac=GATEWAY_MAC),
                one.arp(two.address, sender=three.address),
            ]
            one.send(*forged)
            assert await two.received() == []
            assert await three.received() == []
            assert one.member.refused == len(forged)

    asyncio.run(run())


def test_other_frames_are_lost() -> None:
    async def run() -> None:
        with boxes() as (one, two, _):
            for kind in (b"\x86\xdd", b"\x81\x00", b"\x88\xcc", b"\x00\x10"):
                one.send(frames.BROADCAST + one.mac + kind + bytes(50))
            unknown = mac_of(SUBNET[77])
            one.send(unknown + one.packet(two)[6:])
            assert await two.received() == []

    asyncio.run(run())


def test_the_gateway_answers() -> None:
    async def run() -> None:
        with boxes() as (one, two, _):
            one.send(one.arp(GATEWAY))
            (answer,) = await one.received()
            assert answer[:12] == one.mac + GATEWAY_MAC
            assert answer[20:32] == b"\x00\x02" + GATEWAY_MAC + GATEWAY.packed
            assert await two.received() == []

    asyncio.run(run())


def test_the_gateway_sends_nothing_back_into_its_network() -> None:
    """A container that gives a packet for another one to the gateway reaches neither that, nor the host's network."""

    class Outside:
        def __init__(self) -> None:
            self.frames: list[bytes] = []

        def send(self, frame: bytes) -> None:
            self.frames.append(frame)

    async def run() -> None:
        with boxes() as (one, two, _):
            one.member.outside = outside = Outside()
            out = one.packet(IPv4Address("10.9.8.7"))
            inside, everybody = one.packet(two.address), one.packet(IPv4Address("255.255.255.255"))
            group = one.packet(IPv4Address("224.0.0.1"))
            one.send(out, inside, everybody, group)
            assert await two.received() == []
            assert outside.frames == [out]

    asyncio.run(run())


def test_containers_may_be_kept_apart() -> None:
    async def run() -> None:
        with boxes(**{OPTION_ICC: "false"}) as (one, two, _):
            one.send(one.packet(two), one.arp(two.address))
            assert await two.received() == []
            one.send(one.arp(GATEWAY))
            assert len(await one.received()) == 1

    asyncio.run(run())


def test_any_bytes_are_survived() -> None:
    async def run() -> None:
        draw = random.Random(1)
        with boxes() as (one, two, _):
            for _ in range(2000):
                piece = bytearray(draw.choice((one.packet(two), one.arp(GATEWAY), one.packet(GATEWAY))))
                for _ in range(draw.randrange(4)):
                    piece[draw.randrange(12, len(piece))] = draw.randrange(256)
                one.send(bytes(piece[: draw.randrange(len(piece) + 1)]))
                await asyncio.sleep(0)
            await two.received()
            await one.received()
            one.send(one.packet(two))
            assert await two.received() == [one.packet(two)]

    asyncio.run(run())


def test_a_card_that_sends_no_frames_is_closed() -> None:
    async def run() -> None:
        with boxes() as (one, two, _):
            one.end.sendall(b"\xff" * 100)
            await asyncio.sleep(0.02)
            with pytest.raises(OSError, match=r"."):
                one.end.sendall(bytes(100))
            two.send(two.packet(one))
            assert await two.received() == []

    asyncio.run(run())


def test_a_flood_neither_starves_the_service_nor_takes_memory() -> None:
    """A VM sends as fast as it can to one that takes nothing. The event loop goes on for others, and what waits for the
    one that takes nothing is bounded.
    """

    async def run() -> None:
        with boxes() as (one, two, three):
            is_over = Event()
            piece = one.packet(two) + bytes(1000)
            data = (struct.pack(">I", len(piece)) + piece) * 50

            def flood() -> None:
                end = socket.socket(fileno=one.end.detach())
                end.setblocking(True)
                with end:
                    end.settimeout(1)
                    while not is_over.is_set():
                        end.sendall(data)

            thread = Thread(target=flood)
            thread.start()
            worst = 0.0
            for _ in range(100):
                before = monotonic()
                await asyncio.sleep(0.005)
                worst = max(worst, monotonic() - before)
            three.send(three.arp(two.address))
            assert two.card.link.dropped > 0
            assert two.card.link.waiting <= MOST_WAITING + len(piece) + 4
            assert worst < 0.5
            is_over.set()
            await asyncio.to_thread(thread.join)
            one.end = socket.socket()

    asyncio.run(run())


def test_pings_of_the_gateway_have_right_checksums() -> None:
    body = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + 5, 9, 0, 64, 1, 0, SUBNET[2].packed, GATEWAY.packed)
    echo = b"\x08\x00\x00\x00\x12\x34\x00\x01" + b"hello"
    frame = GATEWAY_MAC + mac_of(SUBNET[2]) + frames.IPV4 + body + echo + bytes(13)  # the rest is padding
    packet = frames.packet_of(frame)
    assert packet is not None
    answer = frames.echo_answer(frame, packet)
    assert answer is not None

    def total(data: bytes) -> int:
        data += bytes(len(data) % 2)
        found: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
        return (found & 0xFFFF) + (found >> 16)

    assert answer[:14] == mac_of(SUBNET[2]) + GATEWAY_MAC + frames.IPV4
    assert total(answer[14:34]) == total(answer[34:]) == 0xFFFF
    assert answer[34:] == b"\x00\x00" + answer[36:38] + b"\x12\x34\x00\x01hello"


def test_a_reset_acknowledges() -> None:
    """Who tries to connect does not believe another one. The checksum stays right."""
    addresses = SUBNET[3].packed + SUBNET[2].packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + addresses

    def segment(flags: int) -> bytes:
        plain = struct.pack("!HHIIBBHHH", 80, 4000, 0xC8F06DC4, 0xADFF8766, 0x50, flags, 0, 0, 0)
        total: int = sum(struct.unpack("!16H", addresses + struct.pack("!HH", 6, 20) + plain))
        total = (total & 0xFFFF) + (total >> 16)
        return plain[:16] + (~total & 0xFFFF).to_bytes(2, "big") + plain[18:]

    begin = mac_of(SUBNET[2]) + GATEWAY_MAC + frames.IPV4 + head
    assert frames.acknowledging_reset(begin + segment(0x04)) == begin + segment(0x14)
    for flags in (0x14, 0x10, 0x02, 0x11):
        assert frames.acknowledging_reset(begin + segment(flags)) == begin + segment(flags)
    for short in range(len(begin) + 20):
        frames.acknowledging_reset((begin + segment(0x04))[:short])
