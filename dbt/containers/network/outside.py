"""What is outside of a container's network, by a ``passt`` of its own: it is the gateway, and forwards published ports.

It is started with the first packet for it, or for ports at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from time import monotonic
from typing import Final

from dbt.containers.network.addresses import mac_text
from dbt.containers.network.errors import Forbidden, Invalid, NetworkFailure
from dbt.containers.network.interface import Interface
from dbt.containers.network.link import Link
from dbt.host.net_option import Forward, NetworkError
from dbt.host.passt import Place, start_passt

#: Frames that wait while the program starts, and seconds between two starts if it ends by itself.
_MOST_FRAMES: Final = 64
_PAUSE_S: Final = 1.0
#: How long it may take to end, and before that to take what is for it, and how often that is looked at, in seconds.
_END_S: Final = 2.0
_LOOK_S: Final = 0.005
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Passt:
    """The outside of one card. ``take`` gets the frames that come from there, and ``say`` hears why there is none."""

    def __init__(
        self,
        interface: Interface,
        gateway_mac: bytes,
        gateway: str,
        take: Callable[[Sequence[bytes]], None],
        say: Callable[[str], None],
    ) -> None:
        subnet: IPv4Network = interface.subnet
        self._place = Place(
            address=str(interface.address),
            prefix=subnet.prefixlen,
            gateway=gateway,
            mac=mac_text(gateway_mac),
            names=gateway,
            reaches_host=False,
            name="what is outside of a container's network",
        )
        self._take, self._say = take, say
        self._link: Link | None = None
        self._starting: asyncio.Task[None] | None = None
        self._frames: list[bytes] = []
        self._forwards: Sequence[Forward] = ()
        self._not_before = 0.0
        self._is_closed = False

    async def publish(self, forwards: Sequence[Forward]) -> None:
        """Forward ports of the host to the container. Raise NetworkFailure if that is not possible."""
        self._forwards = forwards
        await self._start()

    def send(self, frame: bytes) -> None:
        """Take a frame for outside."""
        if self._link is not None:
            self._link.send(frame)
        elif not self._is_closed and len(self._frames) < _MOST_FRAMES and monotonic() >= self._not_before:
            self._frames.append(frame)
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start_late())

    async def _start_late(self) -> None:
        try:
            await self._start()
        except NetworkFailure as failure:
            self._say(str(failure))
        finally:
            self._starting = None
            self._frames.clear()

    async def _start(self) -> None:
        self._not_before = monotonic() + _PAUSE_S
        try:
            connection = await asyncio.to_thread(start_passt, self._forwards, self._place)
        except NetworkError as error:
            raise NetworkFailure(str(error)) from None
        if self._is_closed:
            connection.close()
            return
        self._link = Link(connection, self._take, self._lost)
        for frame in self._frames:
            self._link.send(frame)

    def _lost(self) -> None:
        self._link = None
        if not self._is_closed:
            self._say("the program passt of a container has ended: what is outside cannot be reached at the moment")
            if self._forwards and self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._publish_again())

    async def _publish_again(self) -> None:
        """Start it again for the ports that it has forwarded."""
        await asyncio.sleep(_PAUSE_S)
        if not self._is_closed:
            await self._start_late()

    @property
    def is_open(self) -> bool:
        """True if the program runs."""
        return self._link is not None

    async def deliver(self) -> None:
        """Return when the program has what was sent, or after some time. It takes nothing more when it is closed."""
        deadline = monotonic() + _END_S
        if self._starting is not None:
            await asyncio.wait((self._starting,), timeout=_END_S)
        while self._link is not None and self._link.has_unread and monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """End it."""
        self._is_closed = True
        if self._link is not None:
            self._link.close()
            self._link = None


def check_ports(wanted: Sequence[Forward], taken: Sequence[Forward]) -> list[Forward]:
    """Return the ports of the host that a container is to have; one that is 0 becomes some that is free. Raise
    Forbidden, with docker's text, for one that is taken.
    """
    found: list[Forward] = []
    for forward in wanted:
        if forward.protocol not in _KINDS:
            raise Invalid(f"invalid proto: {forward.protocol}: ports of tcp and udp can be published")
        address = forward.address or "0.0.0.0"
        for other in (*taken, *found):
            if (other.protocol, other.port) == (forward.protocol, forward.port) and (
                address == other.address or "0.0.0.0" in (address, other.address)
            ):
                raise Forbidden(f"Bind for {address}:{forward.port} failed: port is already allocated")
        found.append(forward._replace(address=address, port=_tried(forward._replace(address=address))))
    return found


async def until_free(forwards: Sequence[Forward]) -> None:
    """Return when ports can be used again that were published, or after some time in which they have not become free:
    the program ends soon after it was left.
    """
    deadline = monotonic() + _END_S
    for forward in forwards:
        while monotonic() < deadline:
            try:
                _tried(forward)
                break
            except Forbidden:
                await asyncio.sleep(_LOOK_S)


def _tried(forward: Forward) -> int:
    """Return the port at which this process could listen just now."""
    with socket.socket(socket.AF_INET, _KINDS[forward.protocol]) as probe:
        if forward.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((forward.address, forward.port))
        except OSError as error:
            why = os.strerror(error.errno or errno.EIO).lower()
            place = f"{forward.protocol}4 {forward.address}:{forward.port}"
            raise Forbidden(f"Error starting userland proxy: listen {place}: bind: {why}") from None
        port: int = probe.getsockname()[1]
        return port
