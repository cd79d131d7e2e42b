"""Containers that move to another engine of this host while they run, with everything that they have.

The engine that has a container offers it to the other one, which makes all but the machine, and says where it listens.
Then the machine moves (:mod:`dbt.hypervisor.migration`), and after it the place in the stream of its port. The disk is
one file all the time, which is in two directories meanwhile; its lock is the machine's that executes. Either engine
remembers that a container is on its way: the one that finds no machine after it was killed, forgets it or asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Final

import msgspec

from dbt.containers.engine.client import EngineClient
from dbt.containers.engine.container import Container
from dbt.containers.engine.errors import BadParameter, Conflict, EngineError, NotFound
from dbt.containers.engine.names import checked_name, is_id
from dbt.containers.engine.records import Definition, Record, State
from dbt.containers.engine.specs import DISK
from dbt.containers.images.errors import ImageNotFound
from dbt.containers.images.saving import Saved, save
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.runtime.checkpoint import PortState
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.daemon.client import RequestFailed
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.migration import Place

if TYPE_CHECKING:
    from dbt.containers.engine.containers import Containers
    from dbt.containers.engine.parts import Parts

#: How long the last word of the other engine may take once the machine is here, in seconds.
_LAST_WORD_S: Final = 20.0
#: How long another engine may take to say whether it has a container, in seconds.
_ANSWER_S: Final = 5.0
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_PATH: Final = "/dbt/arrivals"
_log = logging.getLogger(__name__)


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    """A container that is to come. ``files`` are its disk and what it mounts of the host, by their paths: each has a
    device and a number there. ``boot`` tells which host that is. ``names`` are its files about names.
    """

    name: str
    definition: Definition
    state: State
    folder: str
    files: dict[str, tuple[int, int]]
    boot: str
    names: dict[str, bytes]


def _place_of(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _boot() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()


# -- away ------------------------------------------------------------------------------------------


class Departure:
    """A container that is to go to the engine at the socket ``destination``."""

    def __init__(self, parts: Parts, container: Container, destination: str) -> None:
        self._parts, self._container, self._destination = parts, container, destination

    async def run(self) -> None:
        """Move it. Raise EngineError if it stays."""
        container = self._container
        state = container.record.state
        if container.vm is None or not state.running or state.restarting:
            raise Conflict(f"Container {container.id} is not running: only what runs can be moved")
        if state.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before it is moved")
        if container.record.definition.recording:
            raise Conflict("the container stays here: it is recorded, and a recording stays on its host")
        for point in container.record.definition.mounts:
            if point.type == "volume":
                raise Conflict(
                    f"the container stays here: its volume {point.name} is in this engine's directory. Only "
                    "directories of the host can be mounted by both engines (-v /PATH:/PATH)"
                )
        try:
            await asyncio.to_thread(self._send_image)
            door = (await asyncio.to_thread(self._ask, "POST", _PATH, self._offer()))["Door"]
            try:
                port = await container.depart(Place.parse(door), self._destination)
            except (RuntimeFailure, WrongEndpoint) as failure:
                if container.is_undecided:
                    raise Conflict(f"{failure}: {container.doubt}") from None
                with contextlib.suppress(OSError, RequestFailed):  # it is gone, or nothing is to come there any more
                    await asyncio.to_thread(self._ask, "DELETE", f"{_PATH}/{container.id}")
                raise Conflict(f"the container stays here: {failure}") from None
        except (OSError, RequestFailed) as error:
            raise Conflict(f"the container stays here: {self._destination}: {error}") from None
        try:
            await asyncio.to_thread(self._ask, "POST", f"{_PATH}/{container.id}", msgspec.to_builtins(port))
        except (OSError, RequestFailed) as error:
            _log.error("the container %s has been moved to %s, and then: %s", container.id, self._destination, error)

    def _offer(self) -> object:
        container, record = self._container, self._container.record
        made = record.definition
        paths = [os.path.join(container.folder, DISK), *(one.source for one in made.mounts if one.type == "bind")]
        files = {path: _place_of(path) for path in paths}
        place = container.networks.place
        names = dict(place.files) if place is not None else {}
        return msgspec.to_builtins(Offer(record.name, made, record.state, container.folder, files, _boot(), names))

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, str]:
        with EngineClient(self._destination) as client:
            found = client.ask(method, path, body)
        return found or {}

    def _send_image(self) -> None:
        """Let the other engine have the image, if it has not got it."""
        image = self._container.image
        try:
            self._ask("GET", f"/images/{image.id}/json")
        except RequestFailed as error:
            if error.status != 404:
                raise
            with EngineClient(self._destination) as client:
                said = client.send("POST", "/images/load", save(self._parts.store, [Saved(image, image.names)]))
                if b"errorDetail" in said:
                    raise RequestFailed(said.decode(errors="replace"), 500) from None


def is_there(id: str, destination: str) -> bool:
    """Return True if the engine at a socket has a container, and False if it does not come there either. Raise
    EngineError if there is no telling.
    """
    try:
        with EngineClient(destination) as client:
            client.socket.settimeout(_ANSWER_S)
            found = client.ask("GET", f"{_PATH}/{id}")
    except RequestFailed as error:
        raise EngineError(str(error)) from None
    except TimeoutError:
        raise EngineError(f"the engine at {destination} does not answer") from None
    except OSError as error:
        raise EngineError(f"there is no engine at {destination}: {error.strerror}") from None
    if found["IsComing"]:
        raise EngineError(f"the engine at {destination} does not know yet whether it comes")
    return bool(found["IsThere"])


# -- here ------------------------------------------------------------------------------------------


class Arrival:
    """A container that is to come."""

    def __init__(self, container: Container, offer: Offer, vm: asyncio.Task[ContainerVm]) -> None:
        self.container, self.offer, self.vm = container, offer, vm
        self.port: asyncio.Future[PortState | None] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Task[None] | None = None


class Arrivals:
    """Containers that come from other engines. It belongs to the engine's event loop."""

    def __init__(self, parts: Parts, containers: Containers) -> None:
        self._parts, self._containers = parts, containers
        self._all: dict[str, Arrival] = {}

    async def offer(self, offer: Offer) -> str:
        """Make ready for a container. Return the place where its machine can come. Raise EngineError."""
        made = offer.definition
        name = checked_name(offer.name)
        self._check(offer)
        try:
            image = self._parts.store.by_id(made.image)
        except ImageNotFound:
            raise NotFound(f"No such image: {made.image}") from None
        if [layer.diff_id for layer in image.layers] != made.layers:
            raise BadParameter("the container's layers are not those of its image")
        state = msgspec.structs.replace(
            offer.state, coming_from=offer.folder, going_to="", starting=True, running=False, ports=[], pid=0
        )
        disk = os.path.join(offer.folder, DISK)
        container = await self._containers.expect(Record(name, made, state), image, lambda new: os.link(disk, new))
        try:
            door = await self._listen(container, offer)
        except BaseException:
            await self._containers.forget_expected(container)
            raise
        return door

    def _check(self, offer: Offer) -> None:
        """Raise EngineError for what cannot come."""
        made = offer.definition
        if not is_id(made.id):
            raise BadParameter("the id of the container is none")
        if made.recording:
            raise BadParameter("a container that is recorded does not move")
        if offer.boot != _boot():
            raise Conflict("a container moves between engines of one host")
        folder = os.path.dirname(self._parts.places.container("x"))
        disk = os.path.join(offer.folder, DISK)
        wanted = {disk, *(one.source for one in made.mounts if one.type == "bind")}
        if wanted != set(offer.files) or any(one.type == "volume" for one in made.mounts):
            raise BadParameter("the files of the container are others than those that it mounts")
        for path, place in offer.files.items():
            with contextlib.suppress(OSError):
                if _place_of(path) == tuple(place):
                    continue
            raise Conflict(f"{path} is not the same file here")
        found = os.lstat(disk)
        if found.st_uid != os.geteuid():
            raise Conflict(f"{disk} belongs to somebody else")
        if found.st_dev != os.stat(folder).st_dev:
            raise Conflict(f"{disk} and {folder} are in different file systems, and the disk has to be in one of them")

    async def _listen(self, container: Container, offer: Offer) -> str:
        place = Place.parse(f"unix:{self._parts.places.of('door-' + container.id[:12])}")
        await container.networks.join(publishes=False)  # the ports are in use as long as it is not here
        loop, ready = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        spec = container.spec()

        def listening(address: str) -> None:
            loop.call_soon_threadsafe(ready.set_result, address)

        coming = loop.create_task(self._parts.runtime.receive(spec, place, listening))
        await asyncio.wait({ready, coming}, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            coming.result()
        arrival = self._all[container.id] = Arrival(container, offer, coming)
        arrival.end = loop.create_task(self._finish(arrival))
        arrival.end.add_done_callback(_log_failure)
        address = ready.result()
        assert isinstance(address, str)
        return address

    async def _finish(self, arrival: Arrival) -> None:
        """Follow the machine that comes until it is a container of this engine. Raise EngineError if it does not."""
        container = arrival.container
        try:
            try:
                vm = await arrival.vm
            except RuntimeFailure as failure:
                await self._containers.forget_expected(container)
                raise Conflict(str(failure)) from None
            await asyncio.wait([arrival.port], timeout=_LAST_WORD_S)
            await asyncio.to_thread(_take_files, arrival.offer.folder, container.folder)
            self._containers.take(container)
            try:
                container.networks.publish()
            except NetworkFailure as failure:  # what runs goes on without them
                _log.error("the container %s has come without its ports: %s", container.id[:12], failure)
            try:
                port = arrival.port.result() if arrival.port.done() else None
                await container.arrive(vm, port, arrival.offer.names)
            except (RuntimeFailure, NetworkFailure) as failure:
                await vm.destroy()
                await container.attach_again()  # it is one that has ended
                raise Conflict(str(failure)) from None
        finally:
            self._all.pop(container.id, None)

    def _find(self, id: str) -> Arrival:
        if (found := self._all.get(id)) is None:
            raise NotFound(f"no container {id} is to come")
        return found

    async def complete(self, id: str, port: PortState) -> None:
        """Hear where the port of a machine is that has come. Return when the container goes on. Raise EngineError."""
        arrival = self._find(id)
        if not arrival.port.done():
            arrival.port.set_result(port)
        assert arrival.end is not None
        await asyncio.shield(arrival.end)

    def standing(self, id: str) -> dict[str, bool]:
        """Return whether a container is to come, and whether it is here."""
        return {"IsComing": id in self._all, "IsThere": any(one.id == id for one in self._containers)}

    async def give_up(self, id: str) -> None:
        """Hear that a container does not come. Nothing is left of it here when this returns."""
        arrival = self._find(id)
        assert arrival.end is not None
        await self._parts.runtime.refuse(id)
        await asyncio.wait([arrival.end])


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a container that was to come does not: %s", error)


def _take_files(source: str, target: str) -> None:
    """Take what a container had beside its disk: its log and its checkpoints."""
    for name in os.listdir(source) if os.path.isdir(source) else ():
        if name.partition(".")[0].endswith("-json") or name == "checkpoints":
            os.rename(os.path.join(source, name), os.path.join(target, name))
