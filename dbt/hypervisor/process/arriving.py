"""A machine at the destination of a migration that is to be in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.migration.arriving import can_be_early
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.hypervisor.migration.messages import BATCH_PAGES, layout_of
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.network_ends import opened
from dbt.hypervisor.process.state_files import carried, memory_file

if TYPE_CHECKING:
    from dbt.host.net_option import Net
    from dbt.host.network import Handover
    from dbt.hypervisor.process.process_vm import ProcessVm
    from dbt.memory.ram import RamFile
    from dbt.vm.input import Arrival
    from dbt.vm.options import HostOptions


class ArrivingProcesses:
    """See :class:`dbt.hypervisor.migration.arriving.Maker`. ``prepared`` returns a process that has made a machine for
    the values in a file, and ``options`` are what the machine has of this host.
    """

    def __init__(self, prepared: Callable[[int], ProcessVm], options: HostOptions) -> None:
        self._prepared, self._nets = prepared, tuple(options.get("nets", ()))
        self.is_early, self.drives = can_be_early(options), options.get("drives", ())

    def prepare(self, values: bytes) -> ArrivingProcess:
        file = memory_file(values)
        try:
            return ArrivingProcess(self._prepared(file), self._nets)
        finally:
            os.close(file)


class ArrivingProcess:
    """See :class:`dbt.hypervisor.arriving_vm.ArrivingVm`. What has come is looked at by its jailed process alone, but
    for the hash of it.
    """

    def __init__(self, vm: ProcessVm, nets: Sequence[Net]) -> None:
        self.vm, self._nets = vm, nets
        self._is_connected = False
        self._late: dict[int, bytes] = {}  # pages that the process gets later
        try:
            regions = vm.ask(say.Leave(), say.Layout).regions
            self.layout = layout_of([list(region) for region in regions])
        except (ProtocolError, VmLost):
            vm.close()
            raise

    def hold(self, file: RamFile) -> None:
        file.seal()
        self.vm.ask(say.HoldMemory(file.parts), say.Ready, [file.handle])

    def put(self, pages: Mapping[int, bytes]) -> None:
        self._late.update(pages)
        if len(self._late) > BATCH_PAGES:
            self.settle()

    def settle(self) -> None:
        while self._late:
            self.vm.ask(self._put_pages(), say.Ready)

    def _put_pages(self) -> say.PutPages:
        """Return the message with as many late pages as fit in one."""
        pages = list(self._late)[:BATCH_PAGES]
        return say.PutPages(pages, b"".join([self._late.pop(page) for page in pages]))

    def take_over(
        self,
        values: bytes,
        pending: Sequence[Arrival],
        handed: Sequence[Handover | None],
        meanwhile: Callable[[], object],
    ) -> None:
        values, own = carried(values)
        arrivals = [(one.receiver, one.data) for one in pending]
        try:
            with opened(self._nets, handed) as (ends, files):
                message = say.TakeOver(values, self._put_pages(), arrivals, ends)
                self.vm.ask(message, say.Ready, [*own, *files], meanwhile)
            self._is_connected = True
        finally:
            for file in own:
                os.close(file)

    def _claim(self) -> None:
        """Have disks and networks again."""
        if not self._is_connected:
            with opened(self._nets, ()) as (ends, files):
                self.vm.ask(say.Claim(ends), say.Ready, files)
            self._is_connected = True

    def keep(self, why: str) -> None:
        self._claim()
        self.vm.ask(say.Doubt(why, releases=False), say.Ready)

    def permit(self) -> None:
        self._claim()
        self.vm.ask(say.Permit(announces=True), say.Ready)

    def doubt(self, why: str) -> None:
        self._is_connected = False
        self.vm.ask(say.Doubt(why, releases=True), say.Ready)

    def close(self) -> None:
        self.vm.close()
