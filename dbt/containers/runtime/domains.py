"""The domains of containers: the host that runs them in a thread, and their life as an event loop hears of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING, Final
from uuid import UUID

from dbt.hypervisor.domain import Domain
from dbt.hypervisor.host import DEFAULT_RATE, Host
from dbt.hypervisor.lifecycle import DomainState
from dbt.hypervisor.port_ring import PieceRing
from dbt.hypervisor.process.carrier import ProcessCarrier
from dbt.hypervisor.process.process_vm import ProcessVm
from dbt.hypervisor.reports import Clock

if TYPE_CHECKING:
    from typing import Unpack

    from dbt.host.console import Console
    from dbt.hypervisor.limits import LimitChanges
    from dbt.vm.machine import Machine
    from dbt.vm.vm_state import VmState

_LOOK_S: Final = 1.0
_AFTER_FAILURE_S: Final = 1.0
_log = logging.getLogger(__name__)


def never_boot(console: Console) -> Machine:
    """Raise: a container's guest goes on from the template, and when it resets itself, that is its end."""
    raise RuntimeError("the guest's kernel has reset its machine")


class ContainerDomains:
    """Runs domains on ``cores`` cores, by default all of this host. Its methods may be called by any thread."""

    def __init__(self, carrier: ProcessCarrier, cores: int | None, loop: asyncio.AbstractEventLoop) -> None:
        self._carrier, self._loop = carrier, loop
        self._listeners: dict[str, Callable[[DomainState, str], None]] = {}
        self._wanted = Event()
        self._is_closing = False
        cores = cores or os.cpu_count() or 1
        self.host = Host(cores, Clock.REAL, DEFAULT_RATE, listener=self._hear, carrier=carrier)
        self._thread = Thread(target=self._run, name="dbt-containers", daemon=True)
        self._thread.start()

    def define(self, name: str, listener: Callable[[DomainState, str], None], **limits: Unpack[LimitChanges]) -> Domain:
        """Return a new domain, whose UUID follows from its name, 64 hexadecimal digits.

        The event loop calls ``listener`` with each state into which it comes, and the reason.
        """
        uuid = UUID(bytes=bytes.fromhex(name)[:16], version=4)
        self._listeners[name] = listener
        return self.host.define(name, never_boot, uuid, PieceRing, **limits)

    def take_from(self, domain: Domain, take: Callable[[ProcessVm], None]) -> None:
        """Call ``take`` with the machine of a domain, which executes nothing meanwhile."""
        with self.host.held(domain):
            assert isinstance(domain.vm, ProcessVm)
            take(domain.vm)

    def forget(self, domain: Domain) -> None:
        """End a domain, if it has not ended, and forget it."""
        self._listeners.pop(domain.name, None)
        if self.host.domains.get(domain.name) is domain:
            self.host.undefine(domain.name, destroy=True)

    def state_of(self, domain: Domain) -> VmState:
        """Return the state of a domain's machine. The caller closes it."""
        with self.host.held(domain):
            return domain.vm.save()

    def _hear(self, domain: Domain) -> None:
        self._wanted.set()
        listener = self._listeners.get(domain.name)
        if listener is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(listener, domain.state, domain.reason)

    def _run(self) -> None:
        while not self._is_closing:
            self._wanted.clear()
            try:
                self.host.run()
            except Exception:
                _log.exception("the scheduler has failed, and goes on")
                self._wanted.wait(_AFTER_FAILURE_S)
                continue
            if not self._is_closing:
                self._wanted.wait()

    def close(self) -> None:
        """Leave the domains alone. Those that have a lease go on in their processes."""
        self._is_closing = True
        self._wanted.set()
        while self._thread.is_alive():
            self.host.stop()  # a run that begins just now would not hear of one that came before
            self._thread.join(_LOOK_S)
