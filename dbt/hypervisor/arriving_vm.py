"""Machines that are moved here and become a domain's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dbt.hypervisor.migration.arriving import Arriving, OwnArriving, OwnMachines
from dbt.hypervisor.threads import ThreadVm

if TYPE_CHECKING:
    from dbt.hypervisor.carrier import Conduct, Vm
    from dbt.vm.options import HostOptions


class ArrivingVm(Arriving, Protocol):
    """A machine that is moved here, as a domain has it then: ``vm``."""

    @property
    def vm(self) -> Vm: ...


class ArrivingThreadVm(OwnArriving):
    """See :class:`ArrivingVm`. The machine is one of this process."""

    def __init__(self, made: OwnArriving, conduct: Conduct) -> None:
        super().__init__(made.machine, made.model)
        self._conduct = conduct

    @property
    def vm(self) -> ThreadVm:
        return ThreadVm(self.machine, self._conduct)


class ThreadMachines(OwnMachines):
    """See :class:`dbt.hypervisor.migration.arriving.Maker`. It makes machines of this process."""

    def __init__(self, options: HostOptions, conduct: Conduct) -> None:
        super().__init__(options)
        self._conduct = conduct

    def prepare(self, values: bytes) -> ArrivingThreadVm:
        return ArrivingThreadVm(super().prepare(values), self._conduct)
