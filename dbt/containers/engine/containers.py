"""All containers: they are made, found, listed and removed here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator

from dbt.containers.engine.config import CreateBody, words
from dbt.containers.engine.container import Container
from dbt.containers.engine.creation import check_config, merge_config
from dbt.containers.engine.departure import Departure, hand_log, hand_over
from dbt.containers.engine.errors import BadParameter, Conflict, EngineError, NotFound, NotModified
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.host_options import LINK, complete_host, discarded
from dbt.containers.engine.mounts import MountMaker
from dbt.containers.engine.names import checked_name, is_id, some_id, some_name
from dbt.containers.engine.parts import Parts
from dbt.containers.engine.peers import Peer, Standing
from dbt.containers.engine.recorded import wanted_recording
from dbt.containers.engine.records import Definition, MountPoint, Record, State
from dbt.containers.engine.specs import DISK, limits_of
from dbt.containers.engine.stored_container import disk_bytes
from dbt.containers.engine.timestamps import asked_ns, now, ns_of
from dbt.containers.engine.volume_content import fill_volume
from dbt.containers.engine.waiting import Exit
from dbt.containers.images.config import read_config
from dbt.containers.images.errors import ImageError, ImageNotFound
from dbt.containers.images.image import Image
from dbt.containers.images.platform import check_wanted, parse_platform
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.runtime.disk import make_disk
from dbt.containers.runtime.spec import RuntimeFailure

_SIGKILL = 9
#: After how many seconds another engine is asked again whether it has a container.
_AGAIN_S = 1.0
#: The configuration of the image, in the directory of the container.
_IMAGE = "image.json"
_log = logging.getLogger(__name__)


class Containers:
    """The containers of an engine. All methods belong to its event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._all: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._mounts = MountMaker(parts.volumes, lambda name: self.find(name).record.definition.mounts)

    async def open(self) -> None:
        """Have the containers of the records: those whose VMs go on, and those that their policy starts."""
        for record in self._parts.records.all():
            try:
                image = self._image_of(record.definition)
            except (ImageError, OSError) as error:
                _log.error("the container %s cannot be had: %s", record.definition.id[:12], error)
                continue
            self._add(Container(self._parts, record, image, self._remove_ended))
        await asyncio.to_thread(self._remove_unrecorded)
        everybody = list(self._all.values())  # of whom some may be removed meanwhile, because they end
        found = await asyncio.gather(*(one.attach_again() for one in everybody), return_exceptions=True)
        for container, result in zip(everybody, found, strict=True):
            if isinstance(result, RuntimeFailure | OSError):
                _log.error("the container %s is lost: %s", container.id[:12], result)
            elif isinstance(result, BaseException):
                raise result
        await self._parts.runtime.end_others()
        running = [one.id for one in self._all.values() if one.vm is not None]
        try:
            await asyncio.to_thread(self._parts.board.networks.detach_others, running)
        except NetworkFailure as error:  # when the disk is full, containers can be removed nevertheless
            _log.error("containers that have ended are in their networks still: %s", error)
        everybody = list(self._all.values())
        gone = await asyncio.gather(*(self._is_elsewhere(container) for container in everybody))
        for container, is_gone in zip(everybody, gone, strict=True):
            if is_gone:
                continue
            if container.record.definition.host.auto_remove and container.vm is None:
                await self._remove_ended(container)
            else:
                container.spawn(self._start_with_engine(container))

    async def _is_elsewhere(self, container: Container) -> bool:
        """Settle what was on its way when this engine or the other one was killed. Return True if it is forgotten."""
        state = container.record.state
        if container.vm is not None and not container.is_undecided:
            state.going_to = state.coming_from = ""
            container.save()
        elif state.coming_from and container.is_undecided:
            container.record.state.error = container.doubt
            container.save()
        elif state.coming_from:
            container.is_being_removed = True
            await self._remove(container, with_volumes=False)
            return True
        elif state.going_to:
            try:
                return await self._has_gone(container)
            except EngineError as error:
                self._leave_open(container, str(error))
        return False

    def _leave_open(self, container: Container, why: str) -> None:
        """Have a container of which nobody knows who has it, and ask later."""
        container.record.state.error = f"it was on its way to another engine: {why}"
        container.save()
        container.spawn(self._settle_later(container))

    async def _has_gone(self, container: Container) -> bool:
        """Ask the engine to which a container was going who has it. Return True if that has, and it is forgotten here.
        Raise EngineError if there is no telling.
        """
        state = container.record.state
        peer = Peer.parse(state.going_to, state.going_by)
        standing = await asyncio.to_thread(peer.standing, container.id, state.going_engine)
        if standing is Standing.COMING:
            raise EngineError(f"the engine at {peer.text} does not know yet whether it comes")
        if standing is Standing.UNDECIDED and container.vm is not None:
            await asyncio.to_thread(peer.keep_out, container.id)  # there, it is waited for what is said here
        elif standing is Standing.UNDECIDED:
            await hand_over(container, peer)
            standing = Standing.HERE
        elif standing is Standing.HERE:
            await hand_log(container, peer)
        if not state.going_to or container.is_being_removed:  # a user has been quicker
            return container.is_being_removed
        if standing is Standing.HERE:
            await self._drop(container)
            return True
        await container.decide()
        return False

    async def _settle_later(self, container: Container) -> None:
        """Ask again and again who has a container, until there is an answer."""
        state = container.record.state
        while state.going_to and not container.is_being_removed:
            await asyncio.sleep(_AGAIN_S)
            with contextlib.suppress(EngineError):
                if await self._has_gone(container):
                    return

    def _image_of(self, made: Definition) -> Image:
        """Return the image of a container, also if it was removed from the store meanwhile."""
        store = self._parts.store
        with contextlib.suppress(ImageNotFound):
            return store.by_id(made.image)
        with open(os.path.join(self._parts.places.container(made.id), _IMAGE), "rb") as file:
            document = file.read()
        found = [store.layer(diff_id) for diff_id in made.layers]
        layers = tuple(layer for layer in found if layer is not None)
        if len(layers) != len(made.layers):
            raise ImageNotFound(f"layers of its image {made.image} are gone")
        return Image(made.image, read_config(document), layers, document=document)

    async def _start_with_engine(self, container: Container) -> None:
        try:
            await container.start_with_engine()
        except EngineError as error:
            _log.error("the container %s cannot be started: %s", container.id[:12], error)

    def _remove_unrecorded(self) -> None:
        """Remove directories of containers that were being made or removed when the engine was killed."""
        root = os.path.dirname(self._parts.places.container("x"))
        known = {record.definition.id for record in self._parts.records.all()}
        for name in set(os.listdir(root)) - known:
            shutil.rmtree(os.path.join(root, name))
        for owner in self._parts.store.holds():
            if is_id(owner) and owner not in known:
                self._parts.store.release(owner)

    def _add(self, container: Container) -> None:
        self._all[container.id] = container
        self._names[container.name] = container.id

    async def close(self) -> None:
        """Let all end."""
        await asyncio.gather(*(one.shut_down() for one in self._all.values()))
        await asyncio.gather(*(one.close() for one in self._all.values()))

    # -- finding -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._all.values()))

    def find(self, text: str) -> Container:
        """Return the container of an id, a name, or the beginning of an id. Raise NotFound or BadParameter."""
        if container := self._all.get(text) or self._all.get(self._names.get(text.removeprefix("/"), "")):
            return _settled(container)
        found = [one for id, one in self._all.items() if id.startswith(text)] if text else []
        if len(found) > 1:
            raise BadParameter(f"Multiple IDs found with provided prefix: {text}")
        if not found:
            raise NotFound(f"No such container: {text}")
        return _settled(found[0])

    @property
    def some_run(self) -> bool:
        """True if there is a container that runs, or is about to."""
        return any(one.record.state.running or one.record.state.starting for one in self._all.values())

    def of_image(self, id: str) -> list[Container]:
        """Return the containers that were made of an image."""
        return [one for one in self._all.values() if one.image.id == id]

    def of_volume(self, name: str) -> list[str]:
        """Return the ids of the containers that mount a volume."""
        return [
            one.id
            for one in self._all.values()
            if any(point.type == "volume" and point.name == name for point in one.record.definition.mounts)
        ]

    # -- making --------------------------------------------------------------------------------

    async def create(self, name: str, body: CreateBody, platform: str = "") -> tuple[Container, list[str]]:
        """Make a container. Return it, and warnings for the user. Raise BadParameter, Conflict, ImageNotFound, also if
        the image is for another ``platform`` than the one that the user asks for.
        """
        wanted = parse_platform(platform) if platform else None
        if name:
            self._check_free(name := checked_name(name))
        if not body.image:
            raise BadParameter("No command specified")
        image = await asyncio.to_thread(self._parts.store.find, body.image)
        if wanted is not None:
            check_wanted(body.image, image.config, wanted)
        config, host = body.config(), body.host_config
        recording = wanted_recording(config, self._parts.places)
        merge_config(config, image.config.run)
        check_config(config)
        warnings = complete_host(host)
        networking = body.networking_config.get("EndpointsConfig") or {}
        if any((settings or {}).get("Links") for settings in networking.values()):
            warnings.append(discarded(LINK))
        id = some_id()
        config.hostname = config.hostname or id[:12]
        mounts = await asyncio.to_thread(self._mounts.points, config, host)
        path, *args = [*words(config.entrypoint), *words(config.cmd)]
        definition = Definition(
            id=id,
            created=now(),
            image=image.id,
            path=path,
            args=args,
            config=config,
            host=host,
            networking=networking,
            mounts=mounts,
            layers=[layer.diff_id for layer in image.layers],
            recording=recording,
        )
        try:
            limits_of(definition)  # raises for a rate that is none
            await asyncio.to_thread(_fill_volumes, definition, image)
            return await self._make(name, definition, image), warnings
        except BaseException:
            await asyncio.to_thread(self._remove_volumes, mounts)
            raise

    async def _make(self, name: str, definition: Definition, image: Image) -> Container:
        folder = self._parts.places.container(definition.id)
        if name:
            self._check_free(name)
        record = Record(name or some_name(self._names), definition, State())
        self._names[record.name] = definition.id  # before anybody else has it
        try:
            container = Container(self._parts, record, image, self._remove_ended)
            await asyncio.to_thread(_make_folder, folder, image)
            definition.blank_disk = disk_bytes(folder)
            await asyncio.to_thread(self._parts.store.hold, definition.id, image.layers)
            self._parts.records.add(record)
        except BaseException:
            del self._names[record.name]
            await asyncio.to_thread(self._forget, definition.id, folder)
            raise
        self._add(container)
        container.tell("create")
        return container

    async def expect(self, record: Record, image: Image, make_disk: Callable[[str], None]) -> Container:
        """Make a container ready that is to come from another engine. ``make_disk`` makes its disk at a path, unless
        that comes with the machine. Nobody finds it before :meth:`take`. Raise Conflict, StoreError or OSError.
        """
        made = record.definition
        self._check_free(record.name)
        if made.id in self._all:
            raise Conflict(f"the container {made.id} is here already")
        folder = self._parts.places.container(made.id)
        self._names[record.name] = made.id
        try:
            await asyncio.to_thread(_fill_folder, folder, image, make_disk)
            await asyncio.to_thread(self._parts.store.hold, made.id, image.layers)
            self._parts.records.add(record)
        except BaseException:
            del self._names[record.name]
            await asyncio.to_thread(self._forget, made.id, folder)
            raise
        return Container(self._parts, record, image, self._remove_ended)

    def take(self, container: Container) -> None:
        """Have a container that was expected."""
        self._add(container)

    async def forget_expected(self, container: Container) -> None:
        """Hear that a container does not come."""
        await container.networks.leave()
        self._parts.records.remove(container.id)
        self._names.pop(container.name, None)
        await asyncio.to_thread(self._forget, container.id, container.folder)

    async def move(self, container: Container, peer: Peer) -> None:
        """Let another engine have a container that runs. Raise EngineError if it stays."""
        if container.is_moving:
            raise Conflict(f"the container {container.id} is being moved already")
        container.is_moving = True
        try:
            has_arrived = await Departure(self._parts, container, peer).run()
        except EngineError as error:
            if container.is_undecided:
                self._leave_open(container, str(error))
            raise
        finally:
            container.is_moving = False
        if not has_arrived:
            self._leave_open(container, "that has its machine, and has not said that it goes on with it")
            raise Conflict(container.doubt)
        await self._drop(container)

    async def _drop(self, container: Container) -> None:
        """Forget a container that another engine has."""
        container.is_being_removed = True
        if container.vm is not None:
            await container.give_up()
        container.tell("migrate", destination=container.record.state.going_to)
        await self._remove(container, with_volumes=False)

    def _check_free(self, name: str) -> None:
        if (other := self._names.get(name)) is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{other}". You have to remove '
                "(or rename) that container to be able to reuse that name."
            )

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name. Raise BadParameter or Conflict."""
        if name.removeprefix("/") == container.name:
            raise BadParameter("Renaming a container with the same name as its current name")
        try:
            name = checked_name(f"/{name.removeprefix('/')}")
            self._check_free(name)
        except (BadParameter, Conflict) as error:
            raise type(error)(f"Error when allocating new name: {error}") from None
        old, container.record.name = container.name, name
        try:
            self._parts.records.save_definition(container.record)
        except BaseException:
            container.record.name = old
            raise
        del self._names[old]
        self._names[name] = container.id
        container.tell("rename", oldName=f"/{old}")

    # -- removing ------------------------------------------------------------------------------

    async def remove(self, container: Container, force: bool, with_volumes: bool) -> None:
        """Remove a container. Raise Conflict if it runs and nobody uses ``force``."""
        state = container.record.state
        if container.is_being_removed:
            raise Conflict(f"removal of container {container.id} is already in progress")
        if (state.running or state.starting) and not force:
            container.check_decided()
            what = "paused" if state.paused else "restarting" if state.restarting else "running"
            before = "Unpause and then stop" if state.paused else "Stop"
            raise Conflict(
                f"You cannot remove a {what} container {container.id}. {before} the container before attempting "
                "removal or force remove"
            )
        container.is_being_removed = True
        try:
            if container.is_undecided:
                await container.give_up()
            elif state.running or state.starting:
                with contextlib.suppress(NotModified):  # it has ended by itself meanwhile
                    await container.stop(0, str(_SIGKILL))
            await self._remove(container, with_volumes)
        finally:
            container.is_being_removed = False

    async def _remove_ended(self, container: Container) -> None:
        """Remove a container with --rm that has ended."""
        if not container.is_being_removed:
            container.is_being_removed = True
            await self._remove(container, with_volumes=True)

    async def _remove(self, container: Container, with_volumes: bool) -> None:
        await container.close()
        self._parts.records.remove(container.id)
        del self._all[container.id]
        del self._names[container.name]
        container.tell("destroy")
        await asyncio.to_thread(self._forget, container.id, container.folder)
        self._parts.records.reserve.take()  # now there may be room for it
        if with_volumes:
            await asyncio.to_thread(self._remove_volumes, container.record.definition.mounts)
        container.removals.tell(Exit(container.record.state.exit_code))

    def _forget(self, id: str, folder: str) -> None:
        """Remove the directory of a container, and let the store remove its layers if nobody else has them."""
        shutil.rmtree(folder, ignore_errors=True)
        self._parts.store.release(id)

    async def prune(self, filters: Filters) -> tuple[list[str], int]:
        """Remove all that do not run. Return their ids, and how much room they had on the host's disk, in bytes."""
        removed, room = [], 0
        until = asked_ns(next(iter(filters.get("until")), ""))
        for container in self:
            made = container.record.definition
            labels = made.config.labels or {}
            is_chosen = filters.labels(labels) and filters.no_labels(labels)
            if container.record.state.running or not is_chosen or (until and ns_of(made.created) > until):
                continue
            size = container.disk_size()
            try:
                await self.remove(container, force=False, with_volumes=False)
            except Conflict:
                continue  # somebody has just started it, or removes it too
            removed.append(container.id)
            room += size
        self._parts.events.tell("container", "prune", "", {"reclaimed": str(room)})
        return removed, room

    def _remove_volumes(self, points: list[MountPoint]) -> None:
        """Remove the volumes of a container that has gone, but for those with chosen names and other containers'."""
        for point in points:
            if point.type == "volume" and not self.of_volume(point.name):
                volume = self._parts.volumes.find(point.name)
                if volume.is_anonymous:
                    self._parts.volumes.remove(point.name, self.of_volume, force=True)


def _settled(container: Container) -> Container:
    if container.is_moving:
        raise Conflict(f"the container {container.id} is being moved to another engine")
    return container


def _fill_volumes(definition: Definition, image: Image) -> None:
    for point in definition.mounts:
        if point.is_filled:
            fill_volume(point.source, image.layers, point.target)


def _make_folder(folder: str, image: Image) -> None:
    _fill_folder(folder, image, make_disk)


def _fill_folder(folder: str, image: Image, make: Callable[[str], None]) -> None:
    """Make the directory of a container, with a disk that is made as ``make`` says."""
    os.mkdir(folder, 0o700)
    try:
        with open(os.path.join(folder, _IMAGE), "wb") as file:
            file.write(image.document)
        make(os.path.join(folder, DISK))
    except OSError as error:
        error.filename = error.filename or folder  # the user is told where there is no room
        raise
