"""Saved machines of the daemon: files that a user names, managed saves, snapshots, and clones.

Methods are as those of :class:`dbt.daemon.domains.Domains`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from time import time

from dbt.daemon import saved_definitions
from dbt.daemon.definition import Definition, plain, read_definition
from dbt.daemon.domains import RUNS, Domains, require_file
from dbt.daemon.errors import Conflict, DefinitionError, HostFailed, NotFound
from dbt.daemon.known_domains import Record, Teller
from dbt.daemon.machines import MachineMaker
from dbt.daemon.saved_definitions import SAVED, read_beside, written_beside
from dbt.daemon.store import Snapshot, Store
from dbt.devices.state import StateError
from dbt.hypervisor.lifecycle import SOUND, DomainState
from dbt.snapshot.errors import SnapshotError, SnapshotNotWritten
from dbt.snapshot.snapshots import read_snapshot
from dbt.vm.vm_state import VmState


class SavedStates:
    """What the daemon saves of ``domains``, in ``directory`` if the user names no file."""

    def __init__(self, domains: Domains, store: Store, machines: MachineMaker, directory: str, tell: Teller) -> None:
        self._domains = domains
        self._store = store
        self._machines = machines
        self._directory = directory
        self._tell = tell

    def _present(self, record: Record) -> VmState:
        """Return the present state of a machine."""
        domain = record.domain
        if domain.state not in SOUND:
            raise Conflict(f"the domain {record.name} is {domain.state.value}, so there is no state of it to save")
        try:
            with self._domains.host.held(domain):
                return domain.vm.save()
        except StateError as error:
            raise Conflict(f"the domain {record.name} cannot be saved: {error}") from None

    @contextmanager
    def _standing_still(self, record: Record) -> Iterator[VmState]:
        """Give the present state of a machine, which goes on after the block if it has not ended by then."""
        ran = record.domain.state in RUNS
        if ran:
            record.domain.pause()
        try:
            yield self._present(record)
        finally:
            if ran and record.domain.state is DomainState.PAUSED:
                record.domain.resume()

    # -- files of the user ---------------------------------------------------------------------

    def save(self, name: str, path: str) -> None:
        """Write a machine to a file, with its definition beside it, and end it."""
        with self._domains.use(name) as record, self._standing_still(record) as state:
            _write(record, state, path)
            self._end_saved(record)

    def restore(self, path: str) -> Record:
        """Start the domain that :meth:`save` has written to a file where it was. It is defined if there is none."""
        _check_path(path)
        require_file(path, f"the file {path} of a saved machine")
        definition = read_beside(path)
        if all(record.name != definition.name for record in self._domains.all()):
            self._domains.define(definition)
        with self._domains.use(definition.name) as record:
            if definition.uuid != record.domain.uuid:
                raise Conflict(
                    f"the machine in {path} is that of another domain {record.name}, with the UUID {definition.uuid}: "
                    f"undefine the one that there is, whose UUID is {record.domain.uuid}"
                )
            self._domains.start_from(record, path, made=definition)
            return record

    def dump(self, name: str, path: str) -> None:
        """Write a machine to a file as it is now, for `dbt snapshot` and `dbt run --restore`. It goes on."""
        with self._domains.use(name) as record:
            _write(record, self._present(record), path, alone=True)

    def _end_saved(self, record: Record) -> None:
        record.domain.destroy()
        self._tell(time(), record.name, "saved", "")
        self._domains.settle(record)

    # -- managed saves -------------------------------------------------------------------------

    def managed_save(self, name: str) -> None:
        """Save a machine so that its next start goes on there, and end it."""
        with self._domains.use(name) as record, self._standing_still(record) as state:
            path = os.path.join(self._directory, f"{record.domain.uuid}{SAVED}")
            _write(record, state, path)
            with _removed_on_failure(path):
                self._domains.set_managed_save(record, path)
            self._end_saved(record)

    # -- snapshots -----------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[Snapshot]:
        """Return the snapshots of a domain, from the oldest on."""
        return self._store.snapshots(self._domains.get(name).domain.uuid)

    def create_snapshot(self, name: str, snapshot: str | None) -> Snapshot:
        """Keep the present state of a machine, by a name or by the next number. It goes on."""
        with self._domains.use(name) as record:
            uuid, known = record.domain.uuid, {one.name for one in self.snapshots(name)}
            if snapshot is None:
                snapshot = next(str(number) for number in range(1, len(known) + 2) if str(number) not in known)
            if snapshot in known:
                raise Conflict(
                    f"the domain {record.name} has a snapshot {snapshot} already: delete it, or name another"
                )
            was, created, state = record.domain.state, time(), self._present(record)
            folder = os.path.join(self._directory, str(uuid))
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"{snapshot}{SAVED}")
            _write(record, state, path)
            shown = DomainState.PAUSED if was is DomainState.PAUSED else DomainState.RUNNING
            made = Snapshot(snapshot, created, shown.value, path)
            with _removed_on_failure(path):
                self._store.add_snapshot(uuid, made)
            self._tell(created, record.name, "snapshot", snapshot)
            return made

    def _snapshot(self, name: str, snapshot: str) -> Snapshot:
        found = next((one for one in self.snapshots(name) if one.name == snapshot), None)
        if found is None:
            raise NotFound(f"the domain {name} has no snapshot {snapshot}: `dbt vm snapshot-list {name}` shows them")
        return found

    def revert(self, name: str, snapshot: str) -> None:
        """Let a domain go on from one of its snapshots. What it has now is lost."""
        with self._domains.use(name) as record:
            found = self._snapshot(name, snapshot)
            self._domains.require_decided(record)
            require_file(found.path, f"the file {found.path} of the snapshot {snapshot}")
            _require_sound(found.path, snapshot)
            self._require_disks(record, read_beside(found.path))
            self._domains.restart_from(record, found.path, found.state == DomainState.PAUSED.value)
            self._tell(time(), record.name, "reverted", snapshot)

    def _require_disks(self, record: Record, made: Definition) -> None:
        """Raise RequestError for a machine that cannot be made here, before another one is ended for it."""
        made = self._machines.check(record.definition.with_machine_of(made))
        for drive in self._machines.options(made).get("drives", ()):
            for path, _ in drive.files:
                require_file(path, f"the disk {path} of the snapshot's machine")

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Forget a snapshot."""
        with self._domains.use(name) as record:
            found = self._snapshot(name, snapshot)
            try:
                saved_definitions.remove(found.path)
            except OSError as error:
                raise HostFailed(f"the snapshot {snapshot} cannot be removed: {found.path}: {error.strerror}") from None
            self._store.remove_snapshot(record.domain.uuid, snapshot)

    # -- clones --------------------------------------------------------------------------------

    def clone(self, name: str, other: str) -> Record:
        """Make another domain as this one, with another identity. A machine is cloned in its present state, and the
        clone goes on as this one does.
        """
        with self._domains.use(name) as record:
            definition = self._machines.copied(record.definition, other)
            if record.domain.state not in SOUND:
                return self._domains.define(read_definition(plain(definition)))
            was, made = record.domain.state, self._machines.copied(record.made, other)
            try:
                return self._domains.adopt_clone(record, definition, made, goes_on=was in RUNS)
            except (StateError, ValueError) as error:
                raise Conflict(f"the domain {record.name} cannot be cloned: {error}") from None


def _require_sound(path: str, snapshot: str) -> None:
    """Raise Conflict for a file that no machine can go on from, before one is ended for it."""
    try:
        read_snapshot(path).close()
    except (SnapshotError, OSError) as error:
        raise Conflict(f"the snapshot {snapshot} cannot be used, and the domain stays as it is: {error}") from None


@contextmanager
def _removed_on_failure(path: str) -> Iterator[None]:
    """Remove a saved machine if the block raises, which was to remember it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            saved_definitions.remove(path)
        raise


def _write(record: Record, state: VmState, path: str, alone: bool = False) -> None:
    """Write a state to a file, unless ``alone`` with the definition of its machine, and give back its memory."""
    from dbt.snapshot.snapshots import write_snapshot

    _check_path(path)
    try:
        with state, nullcontext() if alone else written_beside(path, record.made):
            write_snapshot(state, path)
    except (SnapshotNotWritten, SnapshotError) as error:
        raise HostFailed(f"the domain {record.name} is not saved: {error}") from None
    except OSError as error:
        raise HostFailed(
            f"the domain {record.name} is not saved: its definition cannot be written beside {path}: {error.strerror}. "
            "Make room there, or name another place"
        ) from None


def _check_path(path: str) -> None:
    if not os.path.isabs(path):
        raise DefinitionError(f"{path!r} is no path that begins with /, and the daemon is nowhere else")
