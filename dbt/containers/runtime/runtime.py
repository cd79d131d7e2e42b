"""The runtime: it starts the VMs of containers."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from dbt.containers.network.interface import some_mac
from dbt.containers.runtime import model
from dbt.containers.runtime.checkpoint import PortState, read_checkpoint
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.domains import ContainerDomains
from dbt.containers.runtime.failures import too_long
from dbt.containers.runtime.linked_vm import Follower
from dbt.containers.runtime.recordings import RecordingPlan, new_recording
from dbt.containers.runtime.root_request import check_texts, directories, main_request, model_request, stopped_request
from dbt.containers.runtime.spec import MOST_CARDS, RuntimeFailure, Spec, machine_card
from dbt.host.drive import Drive
from dbt.host.net_option import NOWHERE, Net
from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.lifecycle import LifecycleError
from dbt.hypervisor.migration import MigrationError, Place
from dbt.hypervisor.process.carrier import ProcessCarrier
from dbt.hypervisor.threads import silent
from dbt.linux.images import LinuxGuestError
from dbt.linux.protocol import RequestError
from dbt.linux.template import DEFAULT_MEMORY, Hardware, container_shares, read_template
from dbt.vm.identity import Identity

if TYPE_CHECKING:
    from dbt.hypervisor.process.process_vm import ProcessVm
    from dbt.linux.container_request import ContainerRequest
    from dbt.vm.options import HostOptions
    from dbt.vm.vm_state import VmState

#: How long the VM of another engine may take until it begins to come, in seconds.
_ARRIVAL_S: Final = 60.0


class Connection(Protocol):
    """What a container's VM is connected to (:class:`dbt.containers.network.membership.Membership`)."""

    async def attach(self, vm: ContainerVm) -> None:
        """Connect the cards of a VM."""


class Runtime:
    """Starts the VMs of containers, which belong to the event loop in which this is made.

    - ``leases``: a directory in which VMs have leases. They go on without this process then (:meth:`attach_again`).
    - ``cores``: how many cores they have together, by default all of this host.
    - ``memory``: RAM of each, in bytes.
    - ``jail``: how strict the jails of their processes are.
    - ``say`` is told what takes long, and of what the host does not give.
    """

    def __init__(
        self,
        leases: str | None = None,
        cores: int | None = None,
        memory: int = DEFAULT_MEMORY,
        jail: Strictness = Strictness.ON,
        say: Callable[[str], None] = silent,
    ) -> None:
        self._hardware = Hardware(memory, for_container=True)
        self._say = say
        self._carrier = ProcessCarrier(leases, (), jail, say)
        self._domains = ContainerDomains(self._carrier, cores, asyncio.get_running_loop())
        self._template: asyncio.Task[VmState] | None = None
        self._vms: set[ContainerVm] = set()
        self._model: asyncio.Task[None] | None = None
        self._started = 0  # VMs

    async def prepare(self) -> None:
        """Do what the first container would wait for: boot the template, or read it, and start what VMs are forked
        from. Raise RuntimeFailure if there is no guest.
        """
        await asyncio.gather(self._read_template(), asyncio.to_thread(self._carrier.prepare))

    async def _read_template(self) -> VmState:
        if self._template is None:
            reading = asyncio.to_thread(read_template, self._hardware, self._say)
            self._template = asyncio.get_running_loop().create_task(reading)
        try:
            return await asyncio.shield(self._template)
        except LinuxGuestError as error:
            self._template = None
            raise RuntimeFailure(str(error)) from None

    async def start(
        self, spec: Spec, connection: Connection | None = None, recording: RecordingPlan | None = None
    ) -> ContainerVm:
        """Start a container's VM, whose network cards are connected to something, or to nothing. Its program has been
        executed when this returns. Raise ProcessFailure if it cannot be, and RuntimeFailure if there can be no VM.
        With a ``recording``, it can be replayed (:mod:`dbt.containers.runtime.replays`).
        """
        return await self._start(spec, main_request, True, connection, recording)

    async def open_stopped(self, spec: Spec) -> ContainerVm:
        """Start a VM with the files of a container that does not run, for archives, changes, export and commit. It has
        no program, and ends by :meth:`ContainerVm.stop`.
        """
        return await self._start(spec, stopped_request, False, None)

    async def _start(
        self,
        spec: Spec,
        make_request: Callable[[Spec], ContainerRequest],
        has_program: bool,
        connection: Connection | None,
        recording: RecordingPlan | None = None,
    ) -> ContainerVm:
        _check(spec)
        await self._await_end_of(spec)
        try:
            request = await asyncio.to_thread(make_request, spec)
        except OSError as error:
            raise RuntimeFailure(f"a layer of the container's image cannot be read: {error}") from None
        except RequestError:
            raise too_long(spec.process) from None
        cards = _cards(spec)
        template = await self._read_template()
        vm = self._keep(ContainerVm(self._domains, spec))
        vm.have_core()
        arguments = self._carrier.arguments(_options(spec, cards))
        addresses = tuple(card.mac for card in cards)
        identity = Identity(vm.domain.uuid, secrets.randbits(63), addresses, int(time.time()))

        def start() -> None:
            if recording is None:
                vm.domain.start_in(template, arguments, identity)
                return
            with new_recording(recording, spec, self._hardware.memory, identity) as file:
                vm.domain.start_in(template, arguments, identity, file)

        await self._begin(vm, start)
        self._started += 1
        if self._model is None and self._started >= model.WORTH_IT:
            carrier = self._carrier
            takes = (carrier.keep_code, carrier.fork_ahead, carrier.make_model)
            uses = (partial(self._take_from, take) for take in takes)
            self._model = asyncio.get_running_loop().create_task(model.make_model(self._start_model, *uses))
        await _connect(vm, connection)
        await vm.begin(request, has_program)
        return vm

    async def _start_model(self, spec: Spec) -> ContainerVm:
        return await self._start(spec, model_request, False, None)

    async def _take_from(self, take: Callable[[ProcessVm], None], vm: ContainerVm) -> None:
        """Let containers share something that the process of this one has. Raise RuntimeFailure."""
        try:
            await asyncio.to_thread(self._domains.take_from, vm.domain, take)
        except (RuntimeError, OSError) as error:
            raise RuntimeFailure(str(error)) from None

    def _keep(self, vm: ContainerVm) -> ContainerVm:
        """Know a VM from before it starts until nothing is left of it."""
        self._vms.add(vm)
        vm.when_gone(self._vms.discard)
        return vm

    async def start_from(self, spec: Spec, folder: str, connection: Connection | None = None) -> ContainerVm:
        """Start a container's VM where a checkpoint (:meth:`ContainerVm.checkpoint`) was made, with the disk of that
        time. ``spec`` is the one of the container that it was made of, but for its interfaces. Raise RuntimeFailure.
        """
        _check(spec)
        await self._await_end_of(spec)
        state, port = await asyncio.to_thread(read_checkpoint, folder, spec.disk)
        with state:
            vm = self._keep(ContainerVm(self._domains, spec))
            vm.await_place()
            arguments = self._carrier.arguments(_options(spec, _cards(spec)))
            await self._begin(vm, lambda: vm.domain.start_in(state, arguments))
        await self.go_on(vm, port, connection, {})
        return vm

    async def receive(self, spec: Spec, place: Place, listening: Callable[[str], None]) -> ContainerVm:
        """Wait for the VM of a container that another engine moves here, to a place; ``listening`` is called with its
        address when it can come. It executes when this returns, and :meth:`go_on` has to follow. Raise RuntimeFailure.
        """
        _check(spec)
        await self._await_end_of(spec)
        vm = self._keep(ContainerVm(self._domains, spec))
        vm.await_place()
        options = _options(spec, _cards(spec))
        try:
            await asyncio.to_thread(vm.domain.receive, place, _ARRIVAL_S, options, None, listening)
        except (MigrationError, LifecycleError, ValueError, OSError, VmLost, RuntimeError) as error:
            await vm.destroy()
            raise RuntimeFailure(f"the container {spec.id[:12]} has not come: {error}") from error
        return vm

    async def refuse(self, id: str) -> None:
        """Let a VM not come any more, if it has not begun to: :meth:`receive` raises RuntimeFailure then."""
        for vm in [vm for vm in self._vms if vm.spec.id == id]:
            await asyncio.to_thread(vm.domain.refuse)

    async def go_on(
        self, vm: ContainerVm, port: PortState | None, connection: Connection | None, files: Mapping[str, bytes]
    ) -> None:
        """Connect a VM that has come, and speak to its guest, whose ``port`` is known or has to be found. ``files`` are
        those that it was given where it was before.
        """
        await _connect(vm, connection)
        if port is None:
            await vm.find_place()
        else:
            await vm.go_on(port)
        await self.settle(vm, files)

    async def settle(self, vm: ContainerVm, files: Mapping[str, bytes]) -> None:
        """Let the guest of a VM that has come know where it is, in place of where it was, when it had these files."""
        used = {one.card for one in vm.spec.interfaces}
        await vm.set_interfaces(vm.spec.interfaces, [card for card in range(MOST_CARDS) if card not in used])
        await vm.change_files(files, vm.spec.files)

    async def _await_end_of(self, spec: Spec) -> None:
        """Wait for the end of VMs that the container has had. Raise RuntimeFailure if one still runs."""
        for vm in [vm for vm in self._vms if vm.spec.id == spec.id]:
            if not vm.is_ending:
                raise RuntimeFailure(f"the container {spec.id[:12]} has a VM already")
            await vm.gone()

    async def _begin(self, vm: ContainerVm, start: Callable[[], None]) -> None:
        """Start the machine of a VM. Raise RuntimeFailure if that is not possible. Then there is none, and neither is
        there if this is cancelled.
        """
        starting = asyncio.ensure_future(asyncio.to_thread(start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])  # a thread goes on
            await vm.destroy()
            raise
        except RuntimeFailure:
            await vm.destroy()
            raise
        except (ValueError, OSError, VmLost, RuntimeError) as error:
            await vm.destroy()
            raise RuntimeFailure(f"the VM of the container {vm.spec.id[:12]} cannot start: {error}") from error

    async def attach_again(
        self,
        spec: Spec,
        connection: Connection | None = None,
        pid: int = 0,
        is_paused: bool = False,
        place: int | None = None,
        follower: Follower | None = None,
    ) -> ContainerVm | None:
        """Return the VM of a container whose daemon was killed, or None if there is none any more. What the container's
        other programs had written and nobody had read is lost, and without a ``place`` what its own has, too; nothing
        else is. ``pid``, ``is_paused``, ``place``: see :meth:`ContainerVm.attach`. A VM that is undecided is connected
        by :meth:`decide`. The ``follower`` follows it from the beginning (:meth:`LinkedVm.follow`).
        """
        await self._await_end_of(spec)
        vm = ContainerVm(self._domains, spec)
        if follower is not None:
            vm.follow(follower)
        try:
            if not await vm.attach(pid, is_paused, place):
                return None
        except BaseException:
            await vm.destroy()
            raise
        self._keep(vm)
        if not vm.is_undecided and not vm.main.has_ended:
            try:
                await _connect(vm, connection)
            except RuntimeFailure:
                if not vm.main.has_code:
                    raise
        return vm

    async def decide(self, vm: ContainerVm, connection: Connection | None) -> None:
        """Let a VM that is undecided go on: it does not run elsewhere. Raise RuntimeFailure if it cannot."""
        is_connected = not vm.is_unasked
        await vm.resume(force=True)
        if not is_connected:
            await _connect(vm, connection)

    async def end_others(self) -> None:
        """End the VMs that a process which was killed has left, but for those that have been attached to: of builds, of
        containers that do not run, and of those that there are no more.
        """
        kept = {vm.domain.uuid for vm in self._vms}
        for name in await asyncio.to_thread(self._carrier.end_others, kept):
            self._say(f"the VM of {name[:12]} is ended: it was left by an engine that was killed")

    async def close(self) -> None:
        """End all VMs."""
        if self._model is not None:
            self._model.cancel()
            await asyncio.wait([self._model])
        await asyncio.gather(*(vm.stop() for vm in list(self._vms)))
        await asyncio.to_thread(self._domains.close)
        await asyncio.to_thread(self._carrier.close)
        if self._template is not None:
            (await self._template).close()


async def _connect(vm: ContainerVm, connection: Connection | None) -> None:
    """Connect the cards of a VM, or end it if that fails."""
    if connection is not None:
        try:
            await connection.attach(vm)
        except BaseException:
            await vm.destroy()
            raise


def _check(spec: Spec) -> None:
    """Raise RuntimeFailure for what no VM can be made of."""
    process = spec.process
    texts = [*process.argv, *process.env, process.cwd, process.user, *process.groups, spec.host_name, *spec.files]
    targets = [mount.target for mount in spec.mounts] + [mount.target for mount in spec.tmpfs]
    texts += targets
    check_texts(texts)
    for mount in spec.mounts:
        if not os.path.isdir(mount.source) and not os.path.isfile(mount.source):
            raise RuntimeFailure(
                f"{mount.source}: only a directory or a file of the host can be mounted in a container"
            )
    for target in (process.cwd or "/", *targets, *spec.files):
        if not target.startswith("/"):
            raise RuntimeFailure(f"{target}: a path in a container begins with /")
    if len({one.card for one in spec.interfaces if 0 <= one.card < MOST_CARDS}) < len(spec.interfaces):
        raise RuntimeFailure(f"a container has at most {MOST_CARDS} network cards, which have different numbers")


def _cards(spec: Spec) -> list[Net]:
    """Return all cards in the order of the machine. Those without an interface have some address."""
    addresses = {machine_card(one.card): one.mac for one in spec.interfaces}
    return [Net(NOWHERE, addresses.get(number) or some_mac()) for number in range(MOST_CARDS)]


def _options(spec: Spec, cards: list[Net]) -> HostOptions:
    layers = Drive(spec.layers[0], read_only=True, more=spec.layers[1:]) if spec.layers else Drive("", read_only=True)
    return {
        "drives": [Drive(spec.disk, waits_for_room=True), layers],
        "nets": cards,
        "shares": container_shares(directories(spec)),
    }
