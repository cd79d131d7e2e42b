"""The domains that a daemon knows, and what they are defined as.

Methods may be called by any thread, and several at once; those of one domain wait for each other. They raise
:class:`dbt.daemon.errors.RequestError`, whose text is for the person who has asked.
"""

from __future__ import annotations

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import RLock
from time import time
from uuid import uuid4

import msgspec

from dbt.daemon import saved_definitions
from dbt.daemon.definition import Definition
from dbt.daemon.errors import Conflict, HostFailed, NotFound
from dbt.daemon.machines import GuestBoot, MachineMaker
from dbt.daemon.store import Store, StoredDomain
from dbt.host.endpoint import remove_abandoned
from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.host import Host
from dbt.hypervisor.lifecycle import OCCUPIED, DomainState, LifecycleError

#: Is told of an event: the time, the domain's name, the event, and what else there is to say.
Teller = Callable[[float, str, str, str], None]

_log = logging.getLogger(__name__)


@dataclass
class Record:
    """A domain as the daemon knows it.

    ``made`` is the definition by which its machine was made, or the next one would be if nothing else were said: it
    differs from ``definition`` when that has changed since. ``told`` is the state that was told last. ``reboots`` is
    True if it is to start again when its guest has ended. ``is_stale``: it is to be made anew before its next start,
    although the options of its machine may be the same. ``is_expected``: a machine of another daemon comes for it, and
    nobody else starts one, or forgets it.
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
    is_expected: bool = False
    busy: RLock = field(default_factory=RLock)

    @property
    def name(self) -> str:
        return self.definition.name


class KnownDomains(ABC):
    """The domains of a daemon by name, on its host. ``states`` is the directory of their saved machines."""

    def __init__(self, store: Store, machines: MachineMaker, host: Host, states: str, tell: Teller) -> None:
        self._store = store
        self._machines = machines
        self.host = host
        self._states = states
        self._tell = tell
        self._records: dict[str, Record] = {}
        self._defining = RLock()  # held while domains come and go

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
        stored = StoredDomain(definition, made or definition, persistent, None, False, None)
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
                self._store.put(definition, made, True, paused=not goes_on)
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
        with self._defining:
            is_new = definition.name not in self._records
            if is_new:
                self._define_new(definition, False, made)
        with self.use(definition.name) as record:
            before = None if is_new else record.definition
            if definition.uuid != record.domain.uuid:
                raise Conflict(f"there is a domain {record.name} already, with the UUID {record.domain.uuid}")
            if record.domain.state is not DomainState.DEFINED:
                raise Conflict(f"the domain {record.name} is {record.domain.state.value} here already")
            require_unexpected(record)
            if not is_new:
                self._redefine(record, definition)
                self._renew(record, made)
            record.is_expected = True
        try:
            yield record
        except BaseException:
            if before is not None and record.domain.state is DomainState.DEFINED:
                with record.busy:
                    self._redefine(record, before)
            raise
        else:
            with record.busy:
                self.keep(record, persistent)
        finally:
            record.is_expected = False
            self.settle(record)

    @abstractmethod
    def settle(self, record: Record) -> None:
        """Do what is to be done for a domain that has no machine any more, unless it is done."""

    def keep(self, record: Record, persistent: bool) -> None:
        """Remember a machine that has come here, or has stayed; if ``persistent``, its definition stays after its end,
        too.
        """
        self._store.set_paused(record.domain.uuid, record.domain.state is DomainState.PAUSED)
        self.forget_managed_save(record)
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
            if record.domain.state in OCCUPIED or record.is_expected:
                self._keep(record, msgspec.structs.replace(record.definition, autostart=False), persistent=False)
                return
            self._forget(record)

    def undefine_moved(self, record: Record) -> None:
        """Forget a domain whose machine runs elsewhere now, unless there are snapshots, made while it was moved."""
        with suppress(NotFound), self.use(record.name) as known:
            if known is not record or not record.persistent:
                return
            if count := self.count_snapshots(record):
                _log.warning("the domain %s stays defined here: it has %d snapshots", record.name, count)
                return
            self.undefine(record.name)

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
        remove_socket(record)
        if os.path.isdir(snapshots := os.path.join(self._states, str(record.domain.uuid))):
            shutil.rmtree(snapshots)

    def set_autostart(self, name: str, autostart: bool) -> None:
        """Say whether a domain starts when the daemon does."""
        with self.use_persistent(name, "it cannot start with the daemon"):
            self.change(name, lambda old: msgspec.structs.replace(old, autostart=autostart))

    def set_managed_save(self, record: Record, path: str | None) -> None:
        """Say with which snapshot the next start of a domain that is in use goes on."""
        self._store.set_managed_save(record.domain.uuid, path)
        record.managed_save = path

    def forget_managed_save(self, record: Record) -> None:
        """Forget what ``managedsave`` has saved of a domain that has a machine now: a start from there would be a
        second past of it.
        """
        if (saved := record.managed_save) is None:
            return
        record.managed_save = None  # also if that cannot be remembered
        self.set_managed_save(record, None)
        try:
            saved_definitions.remove(saved)
        except OSError as error:  # the next daemon tries it again
            _log.error("the saved machine %s is not removed: %s", saved, error.strerror)

    def _renew(self, record: Record, made: Definition) -> None:
        """Let the next machine of a domain that does not run be ``made`` by that definition."""
        with self._defining:
            self._store.put(record.definition, made, record.persistent)
            self.host.undefine(record.name, destroy=True)
            record.made, record.boot = made, self._machines.boot(made)
            record.domain = self._domain(record.definition, record.boot)
            record.is_stale = False


def require_unexpected(record: Record) -> None:
    """Raise Conflict for a domain that is in use and is about to get a machine of another daemon's."""
    if record.is_expected:
        raise Conflict(f"a machine comes for the domain {record.name} from another daemon already")


def remove_socket(record: Record) -> None:
    """Remove the socket of a domain's XenStore, if its machine had no time for it. Precondition: it has none now. Its
    definition may name a place at which somebody else is, or a file of the user's: that stays.
    """
    if record.boot.xenstore is not None:
        with suppress(OSError):
            remove_abandoned(record.boot.xenstore)
