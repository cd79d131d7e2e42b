"""Questions for names, and the answers: also for bytes that are no questions."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dbt.containers.network import dns
from dbt.containers.network.host_files import HostNames, NameOptions, hosts_file, resolv_conf
from dbt.containers.network.names import Names
from dbt.containers.network.networks import Networks
from dbt.containers.network.records import Attachment

ME, OTHER = "a" * 64, "b" * 64


def question(name: str, kind: int = dns.A, number: int = 7, more: bytes = b"") -> bytes:
    labels = b"".join(bytes((len(label),)) + label for label in name.encode().split(b".") if label)
    header = struct.pack("!6H", number, 0x0100, 1, 0, 0, bool(more))
    return header + labels + b"\0" + struct.pack("!HH", kind, 1) + more


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    made = Networks(str(tmp_path / "db"), list)
    made.create("net")
    made.attach(ME, Attachment("net", ("me",)))
    made.attach(OTHER, Attachment("net", ("web", "alias")))
    return made


def ask(names: Names, message: bytes, is_stream: bool = False) -> bytes:
    return asyncio.run(names.answer(message, is_stream))


def code(message: bytes) -> int:
    return message[3] & 15


def test_a_name_of_a_container(networks: Networks) -> None:
    found = ask(Names(networks, ME, ()), question("WEB"))
    assert found[:2] == b"\0\7"
    assert found[2] & 0x80  # an answer
    assert code(found) == dns.NO_ERROR
    assert struct.unpack("!H", found[6:8]) == (1,)
    assert found[-4:] == IPv4Address("172.18.0.3").packed
    assert b"\3WEB\0" in found  # as it was asked


def test_a_container_has_no_ipv6_address(networks: Networks) -> None:
    found = ask(Names(networks, ME, ()), question("web", dns.AAAA))
    assert (code(found), found[6:8]) == (dns.NO_ERROR, b"\0\0")


def test_the_name_of_an_address(networks: Networks) -> None:
    found = ask(Names(networks, ME, ()), question("3.0.18.172.in-addr.arpa", dns.PTR))
    assert found.endswith(b"\3web\3net\0")


def test_nobody_is_asked_for_other_names_if_there_is_no_outside(networks: Networks) -> None:
    assert code(ask(Names(networks, ME, ()), question("example.org"))) == dns.SERVER_FAILURE


class Server:
    """A resolver on loopback, which answers each question in a way of its own."""

    def __init__(self) -> None:
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.datagrams.setblocking(False)
        self.address = self.datagrams.getsockname()

    async def answer(self, *answers: bytes) -> None:
        """Take a question, and answer with its header and each of the ``answers`` behind its question."""
        loop = asyncio.get_running_loop()
        message, address = await loop.sock_recvfrom(self.datagrams, 4096)
        for one in answers:
            number = message[:2] if not one.startswith(b"wrong") else b"??"
            await loop.sock_sendto(self.datagrams, number + b"\x81\x80" + message[4:] + one, address)


def test_other_names_are_the_hosts_affair(networks: Networks) -> None:
    server = Server()

    async def run() -> bytes:
        names = Names(networks, ME, [server.address])
        found, _ = await asyncio.gather(
            names.answer(question("example.org", number=9), False), server.answer(b"wrong", b"right")
        )
        return found

    found = asyncio.run(run())
    assert found[:2] == b"\0\x09"
    assert found.endswith(b"right")


def test_an_answer_that_is_too_long_for_a_datagram_is_truncated(networks: Networks) -> None:
    server = Server()

    async def run(message: bytes) -> bytes:
        names = Names(networks, ME, [server.address])
        found, _ = await asyncio.gather(names.answer(message, False), server.answer(bytes(700)))
        return found

    found = asyncio.run(run(question("example.org")))
    assert len(found) <= 512
    assert found[2] & 2  # TC
    room = b"\0" + struct.pack("!HHIH", dns.OPT, 1400, 0, 0)
    assert len(asyncio.run(run(question("example.org", more=room)))) > 700


def test_bytes_that_are_no_question(networks: Networks) -> None:
    """Whatever the guest asks, it gets an answer of at most 512 bytes or none, and nothing else happens."""
    names = Names(networks, ME, ())
    draw = random.Random(1)
    for _ in range(3000):
        message = bytearray(question("web.net"))
        for _ in range(draw.randrange(1, 6)):
            message[draw.randrange(len(message))] = draw.randrange(256)
        message = message[: draw.randrange(len(message) + 1)]
        assert len(ask(names, bytes(message))) <= 512
    assert code(ask(names, question("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 63))) == dns.FORMAT_ERROR
    assert code(ask(names, question("web")[:12] + b"\xc0\x0c\0\1\0\1")) == dns.FORMAT_ERROR  # refers to itself


def test_resolv_conf_is_as_docker_writes_it() -> None:
    host = HostNames.of("# text\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver x\nsearch a b\noptions edns0\n")
    assert host == HostNames(("127.0.0.53", "10.0.0.1"), ("a", "b"), ("edns0",))
    none = NameOptions()
    assert resolv_conf(host, none, True, None) == b"search a b\nnameserver 127.0.0.11\noptions edns0 ndots:0\n"
    assert resolv_conf(host, none, False, "172.17.0.1") == b"search a b\nnameserver 10.0.0.1\noptions edns0\n"
    assert resolv_conf(HostNames(("127.0.0.1",)), none, False, "172.17.0.1") == b"nameserver 172.17.0.1\n"
    wanted = NameOptions(("1.1.1.1",), (".",), ("ndots:3",))
    assert resolv_conf(host, wanted, False, None) == b"nameserver 1.1.1.1\noptions ndots:3\n"
    assert resolv_conf(host, wanted, True, None) == b"nameserver 127.0.0.11\noptions ndots:3\n"


def test_hosts() -> None:
    wanted = NameOptions(hosts=(("printer", "10.0.0.7"),))
    lines = hosts_file([IPv4Address("172.17.0.2")], "web", "example", wanted).decode().splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-2:] == ["10.0.0.7\tprinter", "172.17.0.2\tweb.example web"]
