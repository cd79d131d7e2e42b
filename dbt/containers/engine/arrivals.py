"""Containers that come from other engines while they run (:mod:`dbt.containers.engine.departure`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Final

import msgspec

from dbt.containers.engine.body_source import BodySource
from dbt.containers.engine.container import Container
from dbt.containers.engine.creation import check_config
from dbt.containers.engine.errors import BadParameter, Conflict, NotFound
from dbt.containers.engine.host_options import complete_host
from dbt.containers.engine.moved_log import is_log, unpack
from dbt.containers.engine.names import checked_name, is_id
from dbt.containers.engine.offer import Offer, boot_of_host, place_of
from dbt.containers.engine.peers import Standing
from dbt.containers.engine.records import Record
from dbt.containers.engine.specs import DISK, limits_of
from dbt.containers.images.errors import ImageNotFound
from dbt.containers.images.image import Image
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.runtime.checkpoint import PortState
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.host.endpoint import Endpoint
from dbt.hypervisor.migration import Place

if TYPE_CHECKING:
    from dbt.containers.engine.containers import Containers
    from dbt.containers.engine.parts import Parts

#: How long the other engine may be silent once the machine is here, in seconds.
_LAST_WORD_S: Final = 20.0
#: The containers that may be on their way at the same time.
_MOST: Final = 64
#: What stands for the directory that a container had, if that is on another host.
_ELSEWHERE: Final = "another host"
_log = logging.getLogger(__name__)


class Arrival:
    """A container that is to come."""

    def __init__(self, container: Container, offer: Offer, vm: asyncio.Task[ContainerVm]) -> None:
        self.container, self.offer, self.vm = container, offer, vm
        self.port: asyncio.Future[PortState | None] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Task[None] | None = None
        self.log_comes = False


class Arrivals:
    """Containers that come from other engines. It belongs to the engine's event loop."""

    def __init__(self, parts: Parts, containers: Containers) -> None:
        self._parts, self._containers = parts, containers
        self._all: dict[str, Arrival] = {}

    async def offer(self, offer: Offer, gate: Place | None) -> str:
        """Make ready for a container, which comes through the ``gate`` of other hosts if there is one. Return the place
        where its machine can come. Raise EngineError.
        """
        made = offer.definition
        name = checked_name(offer.name)
        if len(self._all) >= _MOST:
            raise Conflict(f"{_MOST} containers are on their way here already")
        if gate is None:
            self._check_files(offer)
        else:
            _check_foreign(offer)
        _check(offer)
        image = self._image_of(offer)
        state = msgspec.structs.replace(
            offer.state,
            coming_from=offer.folder or _ELSEWHERE,
            going_to="",
            going_by="",
            going_engine="",
            awaits_log=gate is not None,
            starting=True,
            running=False,
            ports=[],
        )

        def make_disk(path: str) -> None:
            if gate is None:
                os.link(os.path.join(offer.folder, DISK), path)

        container = await self._containers.expect(Record(name, made, state), image, make_disk)
        try:
            door = await self._listen(container, offer, gate)
        except BaseException:
            await self._containers.forget_expected(container)
            raise
        return door

    def _image_of(self, offer: Offer) -> Image:
        made = offer.definition
        try:
            image = self._parts.store.by_id(made.image)
        except ImageNotFound:
            raise NotFound(f"No such image: {made.image}") from None
        if [layer.diff_id for layer in image.layers] != made.layers:
            raise BadParameter("the container's layers are not those of its image")
        return image

    def _check_files(self, offer: Offer) -> None:
        """Raise EngineError unless this engine can have the very files of a container of this host."""
        made = offer.definition
        if offer.boot != boot_of_host():
            raise Conflict("a container comes to the socket of an engine from engines of its host alone")
        folder = os.path.dirname(self._parts.places.container("x"))
        disk = os.path.join(offer.folder, DISK)
        wanted = {disk, *(one.source for one in made.mounts if one.type == "bind")}
        if wanted != set(offer.files) or any(one.type == "volume" for one in made.mounts):
            raise BadParameter("the files of the container are others than those that it mounts")
        for path, place in offer.files.items():
            with contextlib.suppress(OSError):
                if place_of(path) == tuple(place):
                    continue
            raise Conflict(f"{path} is not the same file here")
        found = os.lstat(disk)
        if found.st_uid != os.geteuid():
            raise Conflict(f"{disk} belongs to somebody else")
        if found.st_dev != os.stat(folder).st_dev:
            raise Conflict(f"{disk} and {folder} are in different file systems, and the disk has to be in one of them")

    async def _listen(self, container: Container, offer: Offer, gate: Place | None) -> str:
        if gate is None:
            place = Place.parse(f"unix:{self._parts.places.of('door-' + container.id[:12])}")
        else:
            place = gate._replace(endpoint=Endpoint(gate.endpoint.host))
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
            while not (await asyncio.wait([arrival.port], timeout=_LAST_WORD_S))[0] and arrival.log_comes:
                pass  # a long log takes its time
            if arrival.offer.folder:
                await asyncio.to_thread(_take_files, arrival.offer.folder, container.folder, container.id)
            self._containers.take(container)
            container.publish()
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

    async def take_log(self, id: str, source: BodySource) -> None:
        """Take the log of a container that comes from another host. Raise EngineError, or OSError without room."""
        arrival = self._all.get(id)
        container = self._here(id) if arrival is None else arrival.container
        if container is None:
            raise NotFound(f"no container {id} has come")
        state = container.record.state
        if not state.awaits_log:
            return
        state.awaits_log = False
        if arrival is not None:
            arrival.log_comes = True
        try:
            container.log.adopt(await asyncio.to_thread(unpack, source, container.folder, id))
        except BaseException:
            state.awaits_log = True
            raise
        finally:
            if arrival is not None:
                arrival.log_comes = False
        container.save()

    async def complete(self, id: str, port: PortState | None) -> None:
        """Hear that the other engine has given a machine up, and where its port is. Return when the container goes on.
        Raise EngineError.
        """
        if (container := self._undecided(id)) is not None:
            folder = container.record.state.coming_from
            if folder != _ELSEWHERE:
                container.log.close()
                await asyncio.to_thread(_take_files, folder, container.folder, id)
                container.log.open()
            await container.decide()
            return
        arrival = self._find(id)
        if not arrival.port.done():
            arrival.port.set_result(port)
        assert arrival.end is not None
        await asyncio.shield(arrival.end)

    def _here(self, id: str) -> Container | None:
        return next((one for one in self._containers if one.id == id), None)

    def _undecided(self, id: str) -> Container | None:
        """Return a container that was coming when this engine was killed, and whose machine stands still since then."""
        found = self._here(id)
        return found if found is not None and found.is_undecided and found.record.state.coming_from else None

    def standing(self, id: str) -> Standing:
        """Return how far a container is that another engine asks about."""
        if self._undecided(id) is not None:
            return Standing.UNDECIDED
        if id in self._all:
            return Standing.COMING
        return Standing.UNKNOWN if self._here(id) is None else Standing.HERE

    async def give_up(self, id: str) -> None:
        """Hear that a container does not come. Nothing is left of it here when this returns."""
        if (container := self._undecided(id)) is not None:
            await self._containers.remove(container, force=True, with_volumes=False)
            return
        await self._refuse(self._find(id))

    async def _refuse(self, arrival: Arrival) -> None:
        assert arrival.end is not None
        await self._parts.runtime.refuse(arrival.container.id)
        await asyncio.wait([arrival.end])

    async def close(self) -> None:
        """Let nothing come any more."""
        await asyncio.gather(*(self._refuse(arrival) for arrival in list(self._all.values())))


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a container that was to come does not: %s", error)


def _check(offer: Offer) -> None:
    """Raise EngineError for what cannot come from anywhere."""
    if not is_id(offer.definition.id):
        raise BadParameter("the id of the container is none")
    if offer.definition.recording:
        raise BadParameter("a container that is recorded does not move")


def _check_foreign(offer: Offer) -> None:
    """Raise EngineError for a container of another host that could not have been made here: whoever sends it has this
    host execute it, and nothing else.
    """
    made = offer.definition
    if offer.folder or offer.files or any(one.type != "tmpfs" for one in made.mounts):
        raise BadParameter("a container that comes from another host has no files of its host")
    check_config(made.config)
    complete_host(made.host)
    limits_of(made)  # raises for a rate that is none


def _take_files(source: str, target: str, id: str) -> None:
    """Take what a container had beside its disk: its log and its checkpoints."""
    for name in os.listdir(source) if os.path.isdir(source) else ():
        if is_log(name, id) or name == "checkpoints":
            os.rename(os.path.join(source, name), os.path.join(target, name))
