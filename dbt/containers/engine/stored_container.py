"""What a container is while nobody starts or stops it: its record, its files, its log and its listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import posixpath
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import msgspec

from dbt.containers.engine.checkpoints import Checkpoints
from dbt.containers.engine.errors import Conflict
from dbt.containers.engine.execs import Exec
from dbt.containers.engine.host_options import complete_host
from dbt.containers.engine.log_file import Log, LogOptions
from dbt.containers.engine.networking import ContainerNetworks
from dbt.containers.engine.output import Output
from dbt.containers.engine.parts import Parts
from dbt.containers.engine.records import Record, RecordsError, State
from dbt.containers.engine.specs import DISK, limits_of, spec_of
from dbt.containers.engine.stopped_files import StoppedFiles
from dbt.containers.engine.waiting import Exit
from dbt.containers.images.image import Image
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import RuntimeFailure, Spec, Stats, VmEnded

_BLOCK = 512
_log = logging.getLogger(__name__)


class StoredContainer:
    """A container. All methods belong to the engine's event loop. ``image`` keeps the layers in the store."""

    def __init__(self, parts: Parts, record: Record, image: Image) -> None:
        self.record = record
        self.image = image
        self.folder = parts.places.container(record.definition.id)
        self.output = Output()
        self.log = Log(
            os.path.join(self.folder, f"{record.definition.id}-json.log"),
            LogOptions.read(record.definition.host.log_config.config),
        )
        self.vm: ContainerVm | None = None
        self.last_stats: Stats | None = None
        self.execs: dict[str, Exec] = {}
        self.checkpoints = Checkpoints(os.path.join(self.folder, "checkpoints"))
        self.files = StoppedFiles(parts.runtime, self.spec)
        self.networks = ContainerNetworks(parts.board, parts.events, record.definition, lambda: record.name)
        self._parts = parts
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def last_exit(self) -> Exit:
        """How it has ended the last time."""
        return Exit(self.record.state.exit_code, self.record.state.error)

    @property
    def id(self) -> str:
        return self.record.definition.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def is_undecided(self) -> bool:
        """True if its machine may run at another engine, and stands still if it is here."""
        state = self.record.state
        return self.vm.is_undecided if self.vm is not None else bool(state.going_to and state.running)

    @property
    def shown_state(self) -> State:
        """Its state as clients are told: it is paused, too, while nobody knows which engine has it."""
        state = self.record.state
        return msgspec.structs.replace(state, paused=True) if self.is_undecided else state

    @property
    def doubt(self) -> str:
        """What a user is told of a container that may be at another engine."""
        state, force = self.record.state, f"`dbt container resume --force {self.name}` has it here"
        if state.coming_from:
            return (
                "the container was on its way here when this engine was killed, and may be at the other engine still. "
                f"Start that engine, and it will say so; or, if the container does not run there, {force}"
            )
        return (
            f"the container was on its way to the engine at {state.going_to}, and may be there. Start that engine, and "
            f"this one will ask it; or, if the container does not run there, {force}"
        )

    def check_decided(self) -> None:
        """Raise Conflict if its machine may run at another engine."""
        if self.is_undecided:
            raise Conflict(self.doubt)

    def running_vm(self) -> ContainerVm:
        """Return its VM. Raise Conflict if it has none, or stands still."""
        if self.vm is None or not self.record.state.running:
            raise Conflict(f"Container {self.id} is not running")
        self.check_decided()
        if self.record.state.paused:
            raise Conflict(f"Container {self.name} is paused, unpause the container before exec")
        return self.vm

    @contextlib.asynccontextmanager
    async def vm_with_files(self) -> AsyncIterator[ContainerVm]:
        """Have a VM that has its files, whether it runs or not. Raise Conflict while it is paused."""
        if self.vm is None:
            async with self.files.opened() as vm:
                yield vm
        elif self.record.state.paused:
            raise Conflict(f"Container {self.id} is paused: its machine stands still. Unpause it before")
        else:
            self.check_decided()
            yield self.vm

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Have its programs stand still, if it runs, while its files can be read. Raise RuntimeFailure."""
        vm = self.vm
        if vm is None:
            yield
            return
        await vm.freeze()
        self.tell("pause")
        try:
            yield
        finally:
            with contextlib.suppress(VmEnded):
                await vm.thaw()
            self.tell("unpause")

    def is_mounted(self, path: str) -> bool:
        """Return True if a path of the container is on something that is mounted there."""
        whole = posixpath.normpath(f"/{path}")
        return any(f"{whole}/".startswith(f"{point.target}/") for point in self.record.definition.mounts)

    def disk_size(self) -> int:
        """Return how many bytes its own files take on the host's disk."""
        return max(disk_bytes(self.folder) - self.record.definition.blank_disk, 0)

    async def update(self, changes: Mapping[str, Any]) -> list[str]:
        """Give it other limits, or another restart policy, by the names of HostConfig. Return warnings."""
        host = self.record.definition.host
        updated = msgspec.structs.replace(host, **changes)
        warnings = complete_host(updated)
        self.record.definition.host = updated
        try:
            if self.vm is not None and not self.shown_state.paused:
                await self.vm.update(limits_of(self.record.definition, self.networks.place))
        except RuntimeFailure:
            self.record.definition.host = host
            raise
        try:
            self._parts.records.save_definition(self.record)
        except RecordsError:
            self.record.definition.host = host
            if self.vm is not None and not self.shown_state.paused:
                await self.vm.update(limits_of(self.record.definition, self.networks.place))
            raise
        self.tell("update")
        return warnings

    def save(self) -> None:
        """Keep its state."""
        self._parts.records.save_state(self.record)

    def tell(self, action: str, **more: str) -> None:
        """Tell of an event."""
        definition = self.record.definition
        attributes = {**(definition.config.labels or {}), "image": definition.config.image, "name": self.name, **more}
        self._parts.events.tell("container", action, self.id, attributes)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on as long as it likes."""
        task = self._keep_task(work)
        task.add_done_callback(self._has_done)
        return task

    def _keep_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on of which somebody else hears how it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _has_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("something of the container %s has failed", self.record.definition.id[:12], exc_info=error)

    def spec(self) -> Spec:
        """Return what its VM is made of, with its present place in networks."""
        return spec_of(self.record.definition, self.image, self.folder, self.networks.place)

    async def connect(self, network: str, settings: dict[str, Any]) -> None:
        """Be in one more network, with docker's settings. Raise NetworkFailure."""
        await self.networks.connect(self.vm, network, settings)
        self._parts.records.save_definition(self.record)

    async def disconnect(self, network: str) -> None:
        """Be in a network no more. Raise NetworkFailure."""
        await self.networks.disconnect(self.vm, network)
        self._parts.records.save_definition(self.record)


def disk_bytes(folder: str) -> int:
    """Return how many bytes a container's disk takes on the host's."""
    return os.stat(os.path.join(folder, DISK)).st_blocks * _BLOCK
