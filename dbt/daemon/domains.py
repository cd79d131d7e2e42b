"""What the daemon does with domains: each verb of the command is one method.

Methods may be called by any thread, and several at once; those of one domain wait for each other. They raise
:class:`dbt.daemon.errors.RequestError`, whose text is for the person who has asked.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Condition, Event, RLock, Thread
from time import monotonic, time
from typing import Final
from uuid import uuid4

import msgspec

from dbt.daemon import saved_definitions
from dbt.daemon.definition import Definition
from dbt.daemon.errors import Conflict, DefinitionError, HostFailed, NotFound, RequestError
from dbt.daemon.machines import GuestBoot, MachineMaker
from dbt.daemon.saved_definitions import read_beside
from dbt.daemon.store import Store, StoredDomain
from dbt.hypervisor.carrier import Carrier, VmLost
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.host import Host
from dbt.hypervisor.lifecycle import ALIVE, OCCUPIED, DomainState, LifecycleError
from dbt.hypervisor.reports import Clock

#: Is told of an event: the time, the domain's name, the event, and what else there is to say.
Teller = Callable[[float, str, str, str], None]

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


@dataclass
class Record:
    """A domain as the daemon knows it.

    ``made`` is the definition by which its machine was made, or the next one would be if nothing else were said: it
    differs from ``definition`` when that has changed since. ``told`` is the state that was told last. ``reboots`` is
    True if it is to start again when its guest has ended. ``is_stale``: it is to be made anew before its next start,
    although the options of its machine may be the same.
    """

    definition: Definition
    made: Definition
    persistent: bool
    managed_save: str | None
    domain: Domain
    boot: GuestBoot
    told: DomainState = DomainState.DEFINED
    reboots: bool = False
    is_stale: bool = False
    busy: RLock = field(default_factory=RLock)

    @property
    def name(self) -> str:
        return self.definition.name


class Domains:
    """The domains of one daemon, on ``cores`` cores that execute ``rate`` instructions a second each.

    ``tell`` is called with each event, by any thread.
    """

    def __init__(
        self, store: Store, machines: MachineMaker, carrier: Carrier, states: str, tell: Teller, cores: int, rate: int
    ) -> None:
        self._store = store
        self._machines = machines
        self._states = states
        self._tell = tell
        self._records: dict[str, Record] = {}
        self._defining = RLock()  # held while domains come and go
        self._changed = Condition()  # a domain has come into another state
        self._ended = SimpleQueue[Record | None]()  # the domains whose guests have ended
        self._wanted = Event()  # a domain can run, or the daemon ends
        self._is_closing = False
        #: Is told of machines that were undecided, and whether they are here now.
        self.decided: Callable[[Record, bool], None] | None = None
        self.host = Host(cores, Clock.REAL, rate, listener=self._hear, carrier=carrier)
        for stored in store.domains():
            self._attach(self._add(stored), stored.paused)
        self._threads = [Thread(target=work, name="dbt-domains", daemon=True) for work in (self._run, self._settle)]
        for thread in self._threads:
            thread.start()

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

    # -- looking -------------------------------------------------------------------------------

    def all(self) -> list[Record]:
        """Return all domains, in the order in which they were defined."""
        return list(self._records.values())

    @property
    def has_machines(self) -> bool:
        """True if a domain has a machine, or one comes or goes."""
        return any(record.domain.state in OCCUPIED for record in self.all())

    def get(self, name: str) -> Record:
        """Return the domain of a name or UUID."""
        record = self._records.get(name) or next((one for one in self.all() if str(one.domain.uuid) == name), None)
        if record is None:
            raise NotFound(f"there is no domain {name}: `dbt vm list --all` shows those that there are")
        return record

    def count_snapshots(self, record: Record) -> int:
        """Return how many snapshots a domain has, which are forgotten with it."""
        return len(self._store.snapshots(record.domain.uuid))

    @contextmanager
    def use(self, name: str) -> Iterator[Record]:
        """Let nobody else do anything with a domain. What it refuses becomes a Conflict."""
        record = self.get(name)
        with record.busy:
            if self._records.get(record.name) is not record:
                raise NotFound(f"there is no domain {name} any more")
            try:
                yield record
            except LifecycleError as error:
                raise Conflict(str(error)) from None
            except VmLost as error:
                raise HostFailed(f"the machine of the domain {record.name} is lost: {error}") from None

    @contextmanager
    def use_persistent(self, name: str, why: str) -> Iterator[Record]:
        """Let nobody else do anything with a domain that outlives its guest. Raise Conflict, which says ``why``, for
        one that is forgotten then.
        """
        with self.use(name) as record:
            if not record.persistent:
                raise Conflict(
                    f"the domain {name} is transient: it is forgotten when its guest ends, so {why}. "
                    "`dbt vm define FILE` keeps its definition"
                )
            yield record

    # -- definitions ---------------------------------------------------------------------------

    def define(self, definition: Definition, persistent: bool = True) -> Record:
        """Keep a definition. If there is a domain of that name, its next start is by this one."""
        with self._defining:
            if definition.name not in self._records:
                return self._define_new(definition, persistent)
        with self.use(definition.name) as record:
            if definition.uuid not in (None, record.domain.uuid):
                raise Conflict(f"there is a domain {record.name} already, with the UUID {record.domain.uuid}")
            if not persistent:
                raise Conflict(f"there is a domain {record.name} already: say `dbt vm start {record.name}`")
            definition = self._machines.check(msgspec.structs.replace(definition, uuid=record.domain.uuid))
            self._redefine(record, definition, persistent=True)
            return record

    def _define_new(self, definition: Definition, persistent: bool, made: Definition | None = None) -> Record:
        if any(one.domain.uuid == definition.uuid for one in self.all()):
            raise Conflict(f"there is a domain with the UUID {definition.uuid} already")
        definition = self._machines.check(msgspec.structs.replace(definition, uuid=definition.uuid or uuid4()))
        stored = StoredDomain(definition, made or definition, persistent, None, False)
        self._store.put(definition, stored.made, persistent)
        record = self._add(stored)
        self._tell(time(), record.name, "defined", "")
        return record

    def _add(self, stored: StoredDomain) -> Record:
        boot = self._machines.boot(stored.made)
        domain = self._domain(stored.definition, boot)
        record = Record(stored.definition, stored.made, stored.persistent, stored.managed_save, domain, boot)
        self._records[record.name] = record
        return record

    def _attach(self, record: Record, paused: bool) -> None:
        """Take over the machine of a domain if it has outlived the last daemon. The host does not run yet."""
        record.told = DomainState.PAUSED if paused else DomainState.RUNNING
        try:
            found = record.domain.attach()
        except (OSError, VmLost) as error:
            _log.error("the machine of the domain %s cannot be attached to: %s", record.name, error)
            record.told = record.domain.state
            return
        if found and paused and record.domain.state in RUNS:
            record.domain.pause()
        record.told = record.domain.state
        if found:
            self._tell(time(), record.name, "attached", "")
            if record.managed_save is not None:  # from which it goes on, or after which it went on
                self.set_managed_save(record, None)
        elif not record.persistent:
            _log.warning("the domain %s is forgotten: it is transient, and its machine is gone", record.name)
            self._forget(record)

    def _domain(self, definition: Definition, boot: GuestBoot) -> Domain:
        return self.host.define(definition.name, boot, definition.uuid, **definition.limits_of_domain)

    def adopt_clone(self, record: Record, definition: Definition, made: Definition, goes_on: bool) -> Record:
        """Clone the machine of a domain that is in use. ``definition`` is of the clone, and ``made`` of its first
        machine, but for the UUID.
        """
        with self._defining:
            if definition.name in self._records:
                raise Conflict(f"there is a domain {definition.name} already")
            try:
                clone = record.domain.clone(definition.name)
            except OSError as error:
                raise HostFailed(f"the domain {record.name} cannot be cloned: {error}") from None
            try:
                definition, made = (
                    self._machines.check(msgspec.structs.replace(one, uuid=clone.uuid)) for one in (definition, made)
                )
                self._store.put(definition, made, True)
            except BaseException:
                self.host.undefine(clone.name, destroy=True)
                raise
            boot = self._machines.boot(made)
            found = Record(definition, made, True, None, clone, boot, told=DomainState.PAUSED, is_stale=True)
            self._records[found.name] = found
        self._tell(time(), found.name, "defined", f"as a clone of {record.name}")
        if goes_on:
            clone.resume()
        return found

    @contextmanager
    def expected(self, definition: Definition, made: Definition, persistent: bool) -> Iterator[Record]:
        """Have a domain without a machine while one comes for it, ``made`` by that definition. If none comes, it is as
        it was before, or forgotten. Raise Conflict if there is a domain of that name that is another one, or has a
        machine.
        """
        known = self._records.get(definition.name)
        if known is None:
            with self._defining:
                record = self._define_new(definition, False, made)
            before = None
        else:
            with self.use(definition.name) as record:
                before = record.definition
                if definition.uuid != record.domain.uuid:
                    raise Conflict(f"there is a domain {record.name} already, with the UUID {record.domain.uuid}")
                if record.domain.state is not DomainState.DEFINED:
                    raise Conflict(f"the domain {record.name} is {record.domain.state.value} here already")
                self._redefine(record, definition)
                self._renew(record, made)
        try:
            yield record
        except BaseException:
            if record.domain.state is DomainState.DEFINED:
                if before is None:
                    self._forget_if_known(record)
                else:
                    self._redefine(record, before)
            raise
        self.keep(record, persistent)

    def keep(self, record: Record, persistent: bool) -> None:
        """Remember a machine that has come here, or has stayed; if ``persistent``, its definition stays after its end,
        too.
        """
        self._store.set_paused(record.domain.uuid, record.domain.state is DomainState.PAUSED)
        if persistent and not record.persistent:
            self._keep(record, record.definition, persistent=True)

    def _keep(self, record: Record, definition: Definition, persistent: bool) -> None:
        """Have another definition of a domain. If it cannot be remembered, nothing has changed."""
        self._store.put(definition, record.made, persistent)
        record.definition, record.persistent = definition, persistent

    def _redefine(self, record: Record, definition: Definition, persistent: bool | None = None) -> None:
        """Keep another definition of a domain that is in use. Its limits hold at once, and all else from the next start
        on, also that it has no limit of memory any more.
        """
        loses_limit = record.definition.limits.memory is not None and definition.limits.memory is None
        self._keep(record, definition, record.persistent if persistent is None else persistent)
        record.is_stale = record.is_stale or loses_limit
        record.domain.set_limits(**definition.limits_of_domain)
        self._tell(time(), record.name, "defined", "")

    def change(self, name: str, change: Callable[[Definition], Definition]) -> Record:
        """Change the definition of a domain."""
        with self.use(name) as record:
            self._redefine(record, self._machines.check(change(record.definition)))
            return record

    def undefine(self, name: str) -> None:
        """Forget a domain that has ended, with its snapshots. One that runs is forgotten when it ends."""
        with self.use(name) as record:
            if record.domain.state in OCCUPIED:
                self._keep(record, msgspec.structs.replace(record.definition, autostart=False), persistent=False)
                return
            self._forget(record)

    def _forget_if_known(self, record: Record) -> None:
        """Forget a domain, unless somebody has done it first."""
        with record.busy:
            if self._records.get(record.name) is record:
                self._forget(record)

    def _forget(self, record: Record) -> None:
        self._store.remove(record.domain.uuid)
        try:
            self._remove_files(record)
        except OSError as error:  # the next daemon tries it again
            _log.error("what there was of the domain %s is not removed: %s", record.name, error)
        with self._defining:
            self.host.undefine(record.name, destroy=True)
            del self._records[record.name]
        self._tell(time(), record.name, "undefined", "")

    def _remove_files(self, record: Record) -> None:
        if record.managed_save is not None:
            saved_definitions.remove(record.managed_save)
        _remove_socket(record)
        if os.path.isdir(snapshots := os.path.join(self._states, str(record.domain.uuid))):
            shutil.rmtree(snapshots)

    def set_autostart(self, name: str, autostart: bool) -> None:
        """Say whether a domain starts when the daemon does."""
        with self.use_persistent(name, "it cannot start with the daemon"):
            self.change(name, lambda old: msgspec.structs.replace(old, autostart=autostart))

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
            if saved is not None:
                record.managed_save = None  # also if that cannot be remembered: it would be a second past
                self.set_managed_save(record, None)
                saved_definitions.remove(saved)

    def start_from(
        self, record: Record, snapshot: str | None, paused: bool = False, made: Definition | None = None
    ) -> None:
        """Start a domain that is in use (:meth:`use`), and let it go on from a snapshot if one is given. If it is to be
        ``paused``, its guest executes nothing. ``made`` is the definition of the snapshot's machine: of it are the
        options, and the limits are those that the domain has now.
        """
        if record.domain.state in (*ALIVE, DomainState.MIGRATING):
            raise Conflict(f"the domain {record.name} is {record.domain.state.value} already")
        if made is None:
            made = record.definition
        else:
            made = self._machines.check(
                msgspec.structs.replace(record.definition, machine=made.machine, type=made.type)
            )
        if record.is_stale or made.machine != record.made.machine:
            self._renew(record, made)
        self._store.set_paused(record.domain.uuid, paused)
        with self.host.held(record.domain):
            self._start(record, snapshot)
            if paused:
                record.domain.pause()

    def set_managed_save(self, record: Record, path: str | None) -> None:
        """Say with which snapshot the next start of a domain that is in use goes on."""
        self._store.set_managed_save(record.domain.uuid, path)
        record.managed_save = path

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

    def _renew(self, record: Record, made: Definition) -> None:
        """Let the next machine of a domain that does not run be ``made`` by that definition."""
        with self._defining:
            self._store.put(record.definition, made, record.persistent)
            self.host.undefine(record.name, destroy=True)
            record.made, record.boot = made, self._machines.boot(made)
            record.domain = self._domain(record.definition, record.boot)
            record.is_stale = False

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
            record.domain.destroy()

    def reset(self, name: str) -> None:
        """Switch a machine off and on again, at once. It boots."""
        with self.use(name) as record:
            self.require_decided(record)
            record.reboots = False
            record.domain.destroy()
            self.start_from(record, None)

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
                with self.use(record.name) as known:
                    if known is record and record.domain.state is DomainState.DEFINED:
                        self._settle_one(record)
            except NotFound:
                continue  # somebody has forgotten it first
            except RequestError as error:
                _log.error("%s", error)
                self._tell(time(), record.name, "failed", str(error))
            except Exception:
                _log.exception("the end of the domain %s is not settled", record.name)

    def _settle_one(self, record: Record) -> None:
        if record.reboots:
            record.reboots = False
            self.start_from(record, None)
        elif not record.persistent:
            self._forget(record)
        else:
            _remove_socket(record)


def _remove_socket(record: Record) -> None:
    """Remove the socket of a domain's XenStore, if its machine had no time for it. Precondition: it has none now."""
    if record.boot.xenstore is not None:
        with suppress(FileNotFoundError):
            os.unlink(record.boot.xenstore)


def require_file(path: str, what: str, remedy: str = "") -> None:
    """Raise NotFound for a file that is gone, or is none, before anything is ended or changed for it."""
    if not os.path.isfile(path):
        raise NotFound(f"{what} is not there any more{f': {remedy}' if remedy else ''}")
