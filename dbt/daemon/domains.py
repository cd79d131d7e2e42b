"""What the daemon does with domains: each verb of the command is one method.

Methods may be called by any thread, and several at once; those of one domain wait for each other. They raise
:class:`dbt.daemon.errors.RequestError`, whose text is for the person who has asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from queue import SimpleQueue
from threading import Condition, Event, Thread
from time import monotonic, time
from typing import Final

from dbt.daemon.definition import Definition
from dbt.daemon.errors import Conflict, DefinitionError, HostFailed, NotFound, RequestError
from dbt.daemon.known_domains import KnownDomains, Record, Teller, remove_socket, require_unexpected
from dbt.daemon.machines import MachineMaker
from dbt.daemon.saved_definitions import read_beside
from dbt.daemon.store import Store, StoredDomain
from dbt.devices.state import StateError
from dbt.hypervisor.carrier import Carrier, VmLost
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.host import Host
from dbt.hypervisor.lifecycle import ALIVE, OCCUPIED, SOUND, DomainState, LifecycleError
from dbt.hypervisor.reports import Clock
from dbt.vm.vm_state import VmState

#: What is told when a domain comes into a state. To the others belongs no event.
_EVENTS: Final = {
    DomainState.PAUSED: "suspended",
    DomainState.CRASHED: "crashed",
    DomainState.DEFINED: "stopped",
    DomainState.UNDECIDED: "undecided",
}
#: How long the scheduler stands still after a failure of its own, in seconds.
_AFTER_FAILURE_S: Final = 1.0
#: How often it is looked whether the scheduler has stopped, or a guest has reset its machine, in seconds.
_LOOK_S: Final = 0.05
_log = logging.getLogger(__name__)
#: The states of a machine that executes, or would if its guest did not wait.
RUNS: Final = frozenset({DomainState.RUNNING, DomainState.BLOCKED})


class Domains(KnownDomains):
    """The domains of one daemon with their machines, on ``cores`` cores that execute ``rate`` instructions a second
    each.

    ``tell`` is called with each event, by any thread.
    """

    def __init__(
        self, store: Store, machines: MachineMaker, carrier: Carrier, states: str, tell: Teller, cores: int, rate: int
    ) -> None:
        host = Host(cores, Clock.REAL, rate, listener=self._hear, carrier=carrier)
        super().__init__(store, machines, host, states, tell)
        self._changed = Condition()  # a domain has come into another state
        self._ended = SimpleQueue[Record | None]()  # the domains whose guests have ended
        self._wanted = Event()  # a domain can run, or the daemon ends
        self._is_closing = False
        #: Is told of machines that were undecided, and whether they are here now.
        self.decided: Callable[[Record, bool], None] | None = None
        restarts = []
        for stored in store.domains():
            record = self._add(stored)
            if self._attach(record, stored) and stored.restarts is not None:
                restarts.append((record, stored))
        self._threads = [Thread(target=work, name="dbt-domains", daemon=True) for work in (self._run, self._settle)]
        for thread in self._threads:
            thread.start()
        for record, stored in restarts:
            self._complete(record, stored)

    def close(self) -> None:
        """Leave the domains alone. Their machines go on in their processes, for the next daemon to attach to."""
        self._is_closing = True
        self._ended.put(None)
        self._wanted.set()
        for thread in self._threads:
            while thread.is_alive():
                self.host.stop()  # a run that begins just now would not hear of one that came before
                thread.join(_LOOK_S)

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

    def _attach(self, record: Record, stored: StoredDomain) -> bool:
        """Take over the machine of a domain if it has outlived the last daemon. The host does not run yet.

        Return True if there is none, and the domain is known still.
        """
        paused = stored.paused
        record.told = DomainState.PAUSED if paused else DomainState.RUNNING
        try:
            found = record.domain.attach()
        except (OSError, VmLost) as error:
            _log.error("the machine of the domain %s cannot be attached to: %s", record.name, error)
            record.told = record.domain.state
            return False
        if found and paused and record.domain.state in RUNS:
            record.domain.pause()
        record.told = record.domain.state
        if found:
            self._tell(time(), record.name, "attached", "")
            self.forget_managed_save(record)  # from which it goes on, or after which it went on
            if stored.restarts is not None:  # it had not been ended yet, or the next one was there already
                self._store.set_restarts(record.domain.uuid, None)
        elif not record.persistent and stored.restarts is None:
            _log.warning("the domain %s is forgotten: it is transient, and its machine is gone", record.name)
            self._forget(record)
            return False
        return not found

    def _complete(self, record: Record, stored: StoredDomain) -> None:
        """Start a domain whose machine the last daemon had ended for another one."""
        snapshots = self._store.snapshots(record.domain.uuid)
        paused = {one.path for one in snapshots if one.state == DomainState.PAUSED.value}
        try:
            with self.use(record.name):
                self.restart_from(record, stored.restarts or None, stored.restarts in paused)
        except (RequestError, NotFound) as error:
            _log.error("the domain %s was to be started again: %s", record.name, error)
            self._tell(time(), record.name, "failed", str(error))
            if not record.persistent:
                self._forget_if_known(record)

    # -- life ----------------------------------------------------------------------------------

    def start(self, name: str, boots: bool = False) -> None:
        """Start a domain, or let it go on where ``managedsave`` has saved it. With ``boots`` it boots nevertheless."""
        with self.use(name) as record:
            saved = record.managed_save
            if saved is not None and not boots:
                require_file(
                    saved, f"the file {saved} of the saved machine", f"`dbt vm start --force-boot {name}` boots"
                )
            if saved is None or boots:
                self.start_from(record, None)
            else:
                self.start_from(record, saved, made=read_beside(saved))

    def start_from(
        self, record: Record, snapshot: str | None, paused: bool = False, made: Definition | None = None
    ) -> None:
        """Start a domain that is in use (:meth:`use`), and let it go on from a snapshot if one is given. If it is to be
        ``paused``, its guest executes nothing. ``made`` is the definition of the snapshot's machine: of it are the
        options, and the limits are those that the domain has now. What ``managedsave`` has saved of it is forgotten.
        """
        if record.domain.state in (*ALIVE, DomainState.MIGRATING):
            raise Conflict(f"the domain {record.name} is {record.domain.state.value} already")
        require_unexpected(record)
        made = record.definition if made is None else self._machines.check(record.definition.with_machine_of(made))
        if record.is_stale or made.machine != record.made.machine:
            self._renew(record, made)
        self._store.set_paused(record.domain.uuid, paused)
        with self.host.held(record.domain):
            self._start(record, snapshot)
            if paused:
                record.domain.pause()
        self.forget_managed_save(record)

    def _start(self, record: Record, snapshot: str | None) -> None:
        record.boot.resume = snapshot
        try:
            record.domain.start()
        except (LifecycleError, VmLost):
            raise
        except ValueError as error:
            raise DefinitionError(f"the domain {record.name} cannot start: {error}") from error
        except (OSError, RuntimeError) as error:
            raise HostFailed(f"the domain {record.name} cannot start: {error}") from error
        finally:
            record.boot.resume = None

    def create(self, definition: Definition) -> Record:
        """Define a domain that is forgotten when it ends, and start it."""
        record = self.define(definition, persistent=False)
        try:
            self.start(record.name)
        except BaseException:
            self._forget_if_known(record)
            raise
        return record

    def suspend(self, name: str) -> None:
        """Let the guest stand still."""
        with self.use(name) as record:
            record.domain.pause()
            try:
                self._store.set_paused(record.domain.uuid, True)
            except RequestError:
                record.domain.resume()
                raise

    def resume(self, name: str, force: bool = False) -> None:
        """Let a guest that was suspended go on; with ``force``, also one whose machine may run elsewhere."""
        with self.use(name) as record:
            self._store.set_paused(record.domain.uuid, False)
            try:
                record.domain.resume(force)
            except LifecycleError:
                self._store.set_paused(record.domain.uuid, record.domain.state is DomainState.PAUSED)
                raise
            except ValueError as error:  # of a disk or a network
                self._store.set_paused(record.domain.uuid, True)
                raise Conflict(f"the domain {record.name} cannot run here: {error}") from None

    def destroy(self, name: str) -> None:
        """End a machine at once."""
        with self.use(name) as record:
            record.reboots = False
            if record.domain.state is DomainState.DEFINED and not (record.persistent or record.is_expected):
                self._forget(record)  # which has failed when it ended
                return
            record.domain.destroy()
            self.settle(record)

    def reset(self, name: str) -> None:
        """Switch a machine off and on again, at once. It boots."""
        with self.use(name) as record:
            self.require_decided(record)
            record.reboots = False
            record.domain.require_machine("reset")
            self.restart_from(record, None)

    def restart_from(self, record: Record, snapshot: str | None, paused: bool = False) -> None:
        """End the machine of a domain that is in use, if it has one, and start another: as :meth:`start_from` does. If
        this daemon is killed meanwhile, the next one starts it. If there is no other one of the snapshot, the first
        goes on.
        """
        uuid, made = record.domain.uuid, None if snapshot is None else read_beside(snapshot)
        self._store.set_restarts(uuid, snapshot or "")
        try:
            with nullcontext() if snapshot is None else self._way_back(record):
                if record.domain.state is not DomainState.DEFINED:
                    record.domain.destroy()
                self.start_from(record, snapshot, paused, made)
        finally:
            self._store.set_restarts(uuid, None)

    @contextmanager
    def _way_back(self, record: Record) -> Iterator[None]:
        """Let the block end the machine of a domain that is in use, for another one. If it raises, and there is none,
        the first machine goes on where it was, as far as its state can be kept.
        """
        was, made = record.domain.state, record.made
        if was in RUNS:
            record.domain.pause()  # what it wrote to disks behind its state would not belong to that
        with self._kept(record) as kept:
            try:
                yield
            except (RequestError, LifecycleError, VmLost) as error:
                if record.domain.state is DomainState.PAUSED and was in RUNS:
                    record.domain.resume()
                if record.domain.state is not DomainState.DEFINED or kept is None:
                    raise
                state, arguments = kept
                try:
                    self._renew(record, made)
                    with self.host.held(record.domain):
                        record.domain.start_in(state, arguments)
                        if was is DomainState.PAUSED:
                            record.domain.pause()
                    self._store.set_paused(record.domain.uuid, was is DomainState.PAUSED)
                except (RequestError, VmLost, OSError, RuntimeError, ValueError) as failure:
                    _log.error("the domain %s does not go on where it was: %s", record.name, failure)
                    raise error from None
                raise Conflict(f"the domain {record.name} goes on as it was: {error}") from None

    @contextmanager
    def _kept(self, record: Record) -> Iterator[tuple[VmState, object] | None]:
        """Give the state of a machine, and what makes another one of it. It is None if there is none that is sound."""
        if record.domain.state not in SOUND:
            yield None
            return
        try:
            with self.host.held(record.domain):
                kept = record.domain.vm.save(), record.domain.vm.arguments
        except (StateError, OSError) as error:
            _log.warning("the present state of the domain %s is not kept: %s", record.name, error)
            yield None
            return
        with kept[0]:
            yield kept

    def require_decided(self, record: Record) -> None:
        """Raise Conflict for a domain that may run elsewhere, which must not run here from another state either."""
        if record.domain.state is DomainState.UNDECIDED:
            raise Conflict(
                f"the domain {record.name} is undecided: it may run at the other daemon of its migration. "
                f"`dbt vm resume {record.name}` asks there, and `dbt vm destroy {record.name}` gives it up here"
            )

    def shutdown(self, name: str, timeout: float | None = None, reboots: bool = False) -> None:
        """Ask the guest to shut down, and with a ``timeout`` in seconds wait until it has. With ``reboots`` it starts
        again then.
        """
        with self.use(name) as record:
            resets = record.domain.resets
            try:
                record.domain.shutdown(reboots)
            except ValueError as error:
                raise Conflict(
                    f"the guest of {record.name} cannot be asked to shut down: {error}. `dbt vm destroy` ends it"
                ) from None
            record.reboots = reboots and record.boot.xenstore is None  # a domain of Xen reboots by itself

        def is_over() -> bool:
            return record.domain.state not in OCCUPIED or (reboots and record.domain.resets != resets)

        if timeout is not None and not self._await(is_over, timeout):
            raise Conflict(
                f"the guest of {record.name} has not shut down within {timeout:g} s. It may need a program that hears "
                f"the power key; `dbt vm destroy {record.name}` ends it at once"
            )
        if timeout is not None and not reboots:
            self.settle(record)

    def set_memory(self, name: str, size: int) -> None:
        """Ask the guest to have only so many bytes of its RAM, and to give the rest back by its balloon."""
        with self.use(name) as record:
            try:
                record.domain.set_memory(size)
            except ValueError as error:
                raise Conflict(f"the memory of the domain {record.name} cannot be {size} bytes: {error}") from None

    def _await(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = monotonic() + seconds
        with self._changed:
            while not condition():  # nobody is told of a guest that resets its machine
                if (left := end - monotonic()) <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_S))
        return True

    # -- what happens by itself ----------------------------------------------------------------

    def _hear(self, domain: Domain) -> None:
        """Hear that a domain is in another state. The host waits for it, so nothing is done here that takes time."""
        if domain.state in RUNS:
            self._wanted.set()
        record = self._records.get(domain.name)
        if record is None or record.domain is not domain:
            return
        state, before = domain.state, record.told
        if state in (DomainState.DYING, DomainState.MIGRATING) or (state in RUNS and before in RUNS):
            return
        record.told = state
        if before is DomainState.UNDECIDED and self.decided is not None:
            self.decided(record, state in ALIVE)
        if state is DomainState.CRASHED:
            _log.warning("the domain %s has crashed: %s", record.name, domain.reason)
        event = _EVENTS.get(state) or ("resumed" if before is DomainState.PAUSED else "started")
        self._tell(time(), record.name, event, domain.reason if state not in RUNS else "")
        if state is DomainState.DEFINED:
            self._ended.put(record)
        with self._changed:
            self._changed.notify_all()

    def _settle(self) -> None:
        """Do what is to be done when guests have ended: start again those that reboot, and forget what is transient."""
        while (record := self._ended.get()) is not None:
            try:
                self.settle(record)
            except Exception:
                _log.exception("the end of the domain %s is not settled", record.name)

    def settle(self, record: Record) -> None:
        """Do what is to be done for a domain whose machine has ended, unless it is done. A verb that ends one does this
        before it is over, so that the name of a transient domain is free then. What is not possible is told, but not
        raised: the machine has ended.
        """
        try:
            with suppress(NotFound), self.use(record.name) as known:
                if known is record and record.domain.state is DomainState.DEFINED and not record.is_expected:
                    self._settle_one(record)
        except RequestError as error:
            _log.error("%s", error)
            self._tell(time(), record.name, "failed", str(error))

    def _settle_one(self, record: Record) -> None:
        reboots, record.reboots = record.reboots, False
        if reboots and record.domain.exit_code is not None:  # by itself: it was not saved, or moved, or destroyed
            self.start_from(record, None)
        elif not record.persistent:
            self._forget(record)
        else:
            remove_socket(record)


def require_file(path: str, what: str, remedy: str = "") -> None:
    """Raise NotFound for a file that is gone, or is a directory, before anything is ended or changed for it."""
    if not os.path.exists(path) or os.path.isdir(path):
        raise NotFound(f"{what} is not there any more{f': {remedy}' if remedy else ''}")
