"""A container that goes to another engine while it runs.

The engine that has a container offers it to the other one, which makes all but the machine, and says where it listens.
Then the machine moves (:mod:`dbt.hypervisor.migration`), and after it the place in the stream of its port. On one host
the disk is one file all the time, which is in two directories meanwhile; its lock is the machine's that executes. To
another host it is copied while the guest runs, as is the log afterwards. Either engine remembers that a container is on
its way: the one that finds no machine after it was killed, forgets it or asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from dbt.containers.engine.container import Container
from dbt.containers.engine.errors import Conflict, EngineError
from dbt.containers.engine.moved_log import packed
from dbt.containers.engine.offer import Offer, boot_of_host, place_of
from dbt.containers.engine.peers import ARRIVALS, IMAGES, Peer
from dbt.containers.engine.specs import DISK
from dbt.containers.images.errors import ImageError
from dbt.containers.images.saving import Saved, save
from dbt.containers.runtime.checkpoint import PortState
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.daemon.client import RequestFailed
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.migration import MigrationError, Place, Settings

if TYPE_CHECKING:
    from dbt.containers.engine.parts import Parts

#: How long another engine may be silent while it is told that a container is its own, in seconds.
_HANDING_S: Final = 60.0
#: What may go wrong when another engine is asked.
_FAILURES: Final = (OSError, RequestFailed, MigrationError)
_log = logging.getLogger(__name__)


class Departure:
    """A container that is to go to another engine."""

    def __init__(self, parts: Parts, container: Container, peer: Peer) -> None:
        self._parts, self._container, self._peer = parts, container, peer

    async def run(self) -> bool:
        """Move it. Raise EngineError if it stays. Return False if the other engine has its machine, and has not said
        that it goes on with it.
        """
        container, peer = self._container, self._peer
        self._check()
        try:
            await asyncio.to_thread(self._send_image)
            answer = await asyncio.to_thread(self._ask, "POST", ARRIVALS, self._offer())
            try:
                container.record.state.going_engine = str(answer["Engine"])
                port = await container.depart(self._door(str(answer["Door"])), peer, self._settings())
            except (RuntimeFailure, WrongEndpoint) as failure:
                if container.is_undecided:
                    raise Conflict(f"{failure}: {container.doubt}") from None
                with contextlib.suppress(*_FAILURES):  # it is gone, or nothing is to come there any more
                    await asyncio.to_thread(self._ask, "DELETE", f"{ARRIVALS}/{container.id}")
                raise Conflict(f"the container stays here: {failure}") from None
        except (*_FAILURES, ImageError, KeyError) as error:
            raise Conflict(f"the container stays here: {peer.text}: {error}") from None
        return await self._complete(port)

    async def _complete(self, port: PortState) -> bool:
        """Let the container at the other engine have what belongs to it. Return True if that engine goes on with it."""
        try:
            await hand_over(self._container, self._peer, port)
        except EngineError as error:
            _log.error("the container %s has been moved, and then: %s", self._container.id, error)
            return False
        return True

    def _check(self) -> None:
        """Raise Conflict for a container that does not move."""
        container, definition = self._container, self._container.record.definition
        state = container.record.state
        if container.vm is None or not state.running or state.restarting:
            raise Conflict(f"Container {container.id} is not running: only what runs can be moved")
        if state.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before it is moved")
        if definition.recording:
            raise Conflict("the container stays here: it is recorded, and a recording stays on its host")
        for point in definition.mounts:
            if point.type == "volume":
                raise Conflict(
                    f"the container stays here: its volume {point.name} is in this engine's directory. Only "
                    "directories of the host can be mounted by both engines (-v /PATH:/PATH)"
                )
            if point.type == "bind" and not self._peer.is_local:
                raise Conflict(
                    f"the container stays here: it mounts {point.source} of this host, and {self._peer.text} may be "
                    "another one"
                )
        if not self._peer.is_local and (names := container.checkpoints.names()):
            raise Conflict(
                f"the container stays here: its checkpoint {names[0]} does not go to another host, and would be lost. "
                f"`docker checkpoint rm {container.name} {names[0]}` removes it"
            )

    def _settings(self) -> Settings:
        return Settings(copies_storage=not self._peer.is_local)

    def _door(self, text: str) -> Place:
        """Return where the machine goes: on this host where the engine says, and else at the same host as the engine,
        whatever that says. Raise WrongEndpoint.
        """
        place = self._peer.place
        if place.is_local:
            return Place.parse(text)
        return Place.parse(text, place.credentials).at(place.endpoint.host)

    def _offer(self) -> object:
        container, record = self._container, self._container.record
        made = record.definition
        place = container.networks.place
        offer = Offer(record.name, made, record.state, dict(place.files) if place is not None else {})
        if self._peer.is_local:
            paths = [os.path.join(container.folder, DISK), *(one.source for one in made.mounts if one.type == "bind")]
            offer.folder, offer.boot = container.folder, boot_of_host()
            offer.files = {path: place_of(path) for path in paths}
        return msgspec.to_builtins(offer)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        with self._peer.client() as client:
            found = client.ask(method, path, body)
        return found or {}

    def _send(self, path: str, pieces: Iterable[bytes]) -> None:
        with self._peer.client() as client:
            client.send("POST", path, pieces)

    def _send_image(self) -> None:
        """Let the other engine have the image, if it has not got it."""
        image = self._container.image
        try:
            self._ask("GET", f"{IMAGES}/{quote(image.id, safe='')}")
        except RequestFailed as error:
            if error.status != 404:
                raise
            self._send(IMAGES, save(self._parts.store, [Saved(image, image.names)]))


async def hand_over(container: Container, peer: Peer, port: PortState | None = None) -> None:
    """Let another engine have a container for good, of which it has the machine, with all that is left of it here.
    Without a ``port``, it asks the guest where that is. Raise EngineError if it does not say that it goes on with it.
    """
    await hand_log(container, peer)

    def tell() -> None:
        with peer.client() as client:
            client.socket.settimeout(_HANDING_S)
            client.ask("POST", f"{ARRIVALS}/{container.id}", None if port is None else msgspec.to_builtins(port))

    await _told(tell, peer)


async def hand_log(container: Container, peer: Peer) -> None:
    """Let another engine have the log of a container, which one of this host takes by itself. Raise EngineError if it
    does not take it.
    """

    def tell() -> None:
        with peer.client() as client:
            client.socket.settimeout(_HANDING_S)
            client.send("POST", f"{ARRIVALS}/{container.id}/log", packed(container.folder, container.id))

    if not peer.is_local:
        await _told(tell, peer)


async def _told(tell: Callable[[], None], peer: Peer) -> None:
    try:
        await asyncio.to_thread(tell)
    except _FAILURES as error:
        raise EngineError(f"the engine at {peer.text} does not take it over: {error}") from None
