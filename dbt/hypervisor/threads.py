"""The carrier whose machines are all in the host's process, and are executed by its threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from dbt.host.console import Console
from dbt.hypervisor.carrier import (
    Boot,
    Conduct,
    Facts,
    Name,
    Outcome,
    RecordingFile,
    Terms,
    check_machine,
    execute,
)
from dbt.hypervisor.limits import Limits, limit_devices, set_memory
from dbt.vm.identity import Identity, store_of_clone, with_identity
from dbt.vm.machine import Machine
from dbt.vm.vm_state import VmState

if TYPE_CHECKING:
    from dbt.host.net_option import Net
    from dbt.hypervisor.arriving_vm import ThreadMachines
    from dbt.hypervisor.console_ring import ConsoleRing
    from dbt.hypervisor.migration.leaving import OwnLeaving
    from dbt.hypervisor.recorded import RecordedMachine
    from dbt.vm.options import HostOptions


class ThreadCarrier:
    """See :class:`dbt.hypervisor.carrier.Carrier`."""

    def boot(self, name: Name, boot: Boot, console: ConsoleRing, conduct: Conduct) -> ThreadVm:
        machine = boot(console)
        check_machine(machine, name.name)
        return ThreadVm(machine, conduct)

    def restore(
        self,
        name: Name,
        state: VmState,
        arguments: object,
        console: ConsoleRing,
        conduct: Conduct,
        identity: Identity | None = None,
        recording: RecordingFile | None = None,
    ) -> ThreadVm:
        assert callable(arguments)
        options: HostOptions = arguments(console)
        if identity is not None:
            state = VmState(with_identity(state.values, identity), state.ram)
            nets = zip(options.get("nets", ()), identity.addresses, strict=True)
            options["nets"] = [net._replace(mac=mac) for net, mac in nets]
            options["xenstore"] = store_of_clone(options.get("xenstore"), identity.uuid)
        machine = Machine.restore(state, **options)
        if recording is None:
            return ThreadVm(machine, conduct)
        from dbt.hypervisor.recorded import RecordedMachine

        try:
            recorded = RecordedMachine(machine, recording._replace(file=os.dup(recording.file)))
        except BaseException:
            machine.close()
            raise
        return ThreadVm(machine, conduct, recorded)

    def arguments(self, options: HostOptions) -> Callable[[Console], HostOptions]:
        def with_console(console: Console) -> HostOptions:
            return {"notice": silent, **options, "console": console}

        return with_console

    def arriving(self, name: Name, options: HostOptions, console: ConsoleRing, conduct: Conduct) -> ThreadMachines:
        from dbt.hypervisor.arriving_vm import ThreadMachines

        return ThreadMachines({"notice": silent, **options, "console": console}, conduct)

    def attach(self, name: Name, console: ConsoleRing, conduct: Conduct) -> None:
        """Return None: its machines end with their host."""

    def stirring(self) -> Collection[str]:
        """Return nobody: what comes for a machine, it has at once."""
        return ()

    @property
    def outside_events(self) -> Mapping[int, int]:
        """See :class:`dbt.hypervisor.carrier.Carrier`."""
        return {}


class ThreadVm:
    """See :class:`dbt.hypervisor.carrier.Vm`."""

    def __init__(self, machine: Machine, conduct: Conduct, recorded: RecordedMachine | None = None) -> None:
        self.machine = machine
        self._recorded = recorded
        self.facts = Facts.of(machine)
        if conduct.holds_frames:
            machine.hold_frames()

    def execute(self, terms: Terms) -> Outcome:
        outcome = execute(self.machine, terms)
        return outcome if self._recorded is None else self._recorded.note(outcome)

    def interrupt(self) -> None:
        self.machine.interrupt()

    def wait_until(self, tick: int) -> None:
        self.machine.wait_until(tick, until_woken=True)

    def press_power_key(self, reboots: bool = False) -> None:
        self.machine.press_power_key(reboots)

    def set_memory(self, size: int) -> None:
        set_memory(self.machine, size)

    def release_frames(self) -> None:
        self.machine.release_frames()

    @property
    def has_arrivals(self) -> bool:
        return self.machine.input_source.has_arrivals

    @property
    def outside_events(self) -> Mapping[int, int]:
        return self.machine.outside_events

    def limit_devices(self, limits: Limits) -> None:
        limit_devices(self.machine, limits)

    def plug(self, cards: Mapping[int, int]) -> None:
        for card, descriptor in cards.items():
            self.machine.plug_net(card, os.dup(descriptor))

    def conduct(self, conduct: Conduct) -> None:
        """It ends with its host."""

    def state_hash(self) -> str:
        from dbt.vm.state import state_hash

        return state_hash(self.machine)

    def registers(self) -> Sequence[int]:
        return list(self.machine.r)

    def icount(self) -> int:
        return self.machine.icount

    def read(self, address: int, size: int) -> bytes:
        return self.machine.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self.machine.write(address, data)

    def save(self) -> VmState:
        return self.machine.save()

    def leaving(self) -> OwnLeaving:
        from dbt.hypervisor.migration.leaving import OwnLeaving

        return OwnLeaving(self.machine)

    @property
    def arguments(self) -> Callable[[Console], HostOptions]:
        return host_arguments(self.machine)

    def fork(
        self, name: Name, identity: Identity, console: ConsoleRing, nets: Sequence[Net], conduct: Conduct
    ) -> ThreadVm:
        return ThreadVm(self.machine.fork(identity, console=console, nets=nets), conduct)

    def close(self) -> None:
        try:
            if self._recorded is not None:
                self._recorded.end()
        finally:
            self.machine.close()


def host_arguments(machine: Machine) -> Callable[[Console], HostOptions]:
    """Return a function that gives the arguments with which a machine in the state of this one is made in its place,
    for a console.
    """
    options = machine.options

    def arguments(console: Console) -> HostOptions:
        found = options.of_host(console, silent)
        found["nets"], found["drives"], found["vsock"] = options.nets, options.drives, options.vsock
        found["xenstore"] = options.xenstore
        return found

    return arguments


def silent(line: str) -> None:
    """Ignore what a machine says about itself; its console and its domain's reason are there to be read."""
