"""What is outside of a container's network, without a container."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from dbt.containers.network.addresses import mac_of
from dbt.containers.network.interface import Interface
from dbt.containers.network.outside import Passt
from tests.containers.network.outside import own_address
from tests.host.passt import need_passt

SUBNET, GATEWAY, GUEST = IPv4Network("172.18.0.0/16"), IPv4Address("172.18.0.1"), IPv4Address("172.18.0.2")


def datagram(target: tuple[str, int], data: bytes) -> bytes:
    """Return a frame of the guest with a datagram to an address and a port."""
    address, port = target
    udp = struct.pack(">4H", 5000, port, 8 + len(data), 0) + data  # without a checksum
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += GUEST.packed + IPv4Address(address).packed
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    return mac_of(GATEWAY) + mac_of(GUEST) + b"\x08\x00" + head + udp


def test_what_was_sent_last_is_delivered() -> None:
    """By a program that has just begun to start when its container has ended, and by one that is there."""
    need_passt()
    interface = Interface(0, mac_of(GUEST), GUEST, SUBNET, GATEWAY)
    said: list[str] = []

    async def run(target: tuple[str, int]) -> None:
        outside = Passt(interface, mac_of(GATEWAY), str(GATEWAY), lambda frames: None, said.append)
        outside.send(datagram(target, b"first"))
        await outside.deliver()
        assert outside.is_open
        for number in range(50):
            outside.send(datagram(target, b"%d" % number))
        await outside.deliver()
        outside.close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((own_address(), 0))
        server.settimeout(30)
        asyncio.run(run(server.getsockname()))
        assert [server.recv(100) for _ in range(51)] == [b"first", *(b"%d" % number for number in range(50))]
    assert not said


def test_one_that_is_not_needed_is_not_waited_for() -> None:
    async def run() -> None:
        interface = Interface(0, mac_of(GUEST), GUEST, SUBNET, GATEWAY)
        outside = Passt(interface, mac_of(GATEWAY), str(GATEWAY), lambda frames: None, lambda line: None)
        await outside.deliver()
        assert not outside.is_open
        outside.close()

    asyncio.run(run())
