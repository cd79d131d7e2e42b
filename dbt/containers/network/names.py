"""The name server of a container: names of other containers, and what the host's resolver says of all others."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dbt.containers.network import dns
from dbt.containers.network.networks import Networks

#: How long one server may take, and all of them together, in seconds.
_ONE_S: Final = 4.0
_ALL_S: Final = 10.0
_MOST_SERVERS: Final = 3
_LONGEST: Final = 65_535


class Names:
    """Answers the questions of one container. ``servers`` are those that are asked for other names, addresses with or
    without a port; none if the container reaches nothing outside.
    """

    def __init__(self, networks: Networks, container: str, servers: Sequence[tuple[str, int]]) -> None:
        self._networks, self._container = networks, container
        self._servers = tuple(servers)[:_MOST_SERVERS]

    async def answer(self, message: bytes, is_stream: bool) -> bytes:
        """Return the answer to a question, which is a datagram's unless ``is_stream``. Any bytes can be asked."""
        try:
            question = dns.parse_question(message)
        except dns.BadMessage:
            return dns.failure(message, dns.FORMAT_ERROR) if len(message) >= dns.LEAST else b""
        found = await asyncio.to_thread(self._known, question)
        if found is None:
            found = await self._ask_others(message, question, is_stream)
        if not is_stream and len(found) > question.room:
            return dns.truncated(found, question)
        return found

    def _known(self, question: dns.Question) -> bytes | None:
        """Return the answer about a container, or None if the question is about something else."""
        if (address := question.reverse) is not None:
            name = self._networks.name_of(self._container, address)
            return None if name is None else dns.answer(question, dns.NO_ERROR, [dns.name_record(name)])
        addresses = self._networks.addresses_of(self._container, question.name)
        if addresses is None:
            return None
        records = [dns.address_record(address) for address in addresses] if question.kind in (dns.A, dns.ANY) else []
        return dns.answer(question, dns.NO_ERROR, records)

    async def _ask_others(self, message: bytes, question: dns.Question, is_stream: bool) -> bytes:
        failed = dns.answer(question, dns.SERVER_FAILURE)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ALL_S):
                for server in self._servers:
                    with suppress(OSError, TimeoutError, EOFError):
                        async with asyncio.timeout(_ONE_S):
                            return await (_ask_stream if is_stream else _ask)(server, message, question)
        return failed


async def _ask(server: tuple[str, int], message: bytes, question: dns.Question) -> bytes:
    """Ask a server by a datagram. Raise OSError if it cannot be reached."""
    number = secrets.randbits(16)
    expected = question._replace(id=number)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.setblocking(False)
        asked.connect(server)
        await loop.sock_sendall(asked, dns.with_id(message, number))
        while True:
            found = await loop.sock_recv(asked, _LONGEST)
            if dns.is_answer_to(found, expected):  # else somebody guesses
                return dns.with_id(found, question.id)


async def _ask_stream(server: tuple[str, int], message: bytes, question: dns.Question) -> bytes:
    """Ask a server by a connection. Raise OSError or EOFError if that fails."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        size = int.from_bytes(await reader.readexactly(2), "big")
        found = await reader.readexactly(size)
    finally:
        writer.close()
    if not dns.is_answer_to(found, question):
        raise ConnectionError("the server answers another question")
    return found
