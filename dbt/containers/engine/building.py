"""The VMs of builds: their programs are in a network, as those of containers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dbt.containers.build.failures import BuildFailed
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.network.host_files import NameOptions
from dbt.containers.network.membership import HostName, Membership, Switchboard
from dbt.containers.network.records import Attachment
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.spec import Spec

_NONE = "none"


class BuildMachines:
    """Starts VMs in the network with a name, or in none. ``hosts`` are addresses of names for all of them."""

    def __init__(self, runtime: Runtime, board: Switchboard, network: str, hosts: Sequence[tuple[str, str]]) -> None:
        self._runtime, self._board, self._network = runtime, board, network
        self._options = NameOptions((), (), (), tuple(hosts))
        self._places: dict[str, Membership] = {}

    async def start(self, spec: Spec) -> ContainerVm:
        """Start a VM that has a place in the network until :meth:`finish`. Raise BuildFailed or RuntimeFailure."""
        wanted = [] if self._network == _NONE else [Attachment(self._network, (spec.host_name,))]
        try:
            place = await self._board.join(spec.id, HostName(spec.host_name, options=self._options), wanted)
        except NetworkFailure as failure:
            raise BuildFailed(str(failure)) from None
        self._places[spec.id] = place
        connected = replace(spec, interfaces=place.interfaces, files=dict(place.files))
        return await self._runtime.start(connected, place)

    async def finish(self, spec: Spec) -> None:
        """Have no place any more, if there was one."""
        place = self._places.pop(spec.id, None)
        if place is not None:
            await place.leave()

    async def open_stopped(self, spec: Spec) -> ContainerVm:
        """Start a VM without a program for the files of one that has ended."""
        return await self._runtime.open_stopped(spec)
