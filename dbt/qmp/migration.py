"""The monitor's commands that move the machine: ``migrate`` and its relatives, in QEMU's words.

A thread of its own migrates the machine. Whenever it needs the guest to stand still, the thread that runs the machine
lets it in between two slices. From the switch-over on the guest is held, as by a client who has paused it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Final

from dbt.host.endpoint import WrongEndpoint
from dbt.qmp.errors import QmpError

if TYPE_CHECKING:
    from dbt.hypervisor.migration import Outgoing, Progress
    from dbt.hypervisor.migration.leaving import Leaving, OwnLeaving
    from dbt.vm.machine import Machine

#: What QEMU calls the states of the run in which a migration has the machine.
SWITCHING: Final = "finish-migrate"
MOVED: Final = "postmigrate"
WAITING: Final = "inmigrate"
_PARAMETERS: Final = ("downtime-limit", "max-bandwidth", "tls-creds")
_MS: Final = 1000


class Gate:
    """Lets a thread in where another one, which runs the machine, has stopped it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting = self._is_open = False
        self._is_closed = False

    @property
    def is_wanted(self) -> bool:
        """True if somebody waits for the machine to stand still."""
        return self._waiting

    def let_in(self) -> None:
        """Let a thread in that waits, and return when it is done. The thread that runs the machine calls this."""
        with self._changed:
            if self._waiting:
                self._is_open = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._is_open)

    def close(self) -> None:
        """Let nobody in any more: the machine is not run again."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Keep the machine standing still. Raise ConnectionAbortedError if it is not run any more."""
        with self._changed:
            self._waiting = True
            self._changed.wait_for(lambda: self._is_open or self._is_closed)
            self._waiting = False
            if not self._is_open:
                raise ConnectionAbortedError("the run has ended")
            try:
                yield
            finally:
                self._is_open = False
                self._changed.notify_all()


class MachineMove:
    """The migrations of the monitor's machine, and the subject of each
    (:class:`dbt.hypervisor.migration.subject.Subject`).

    ``machine`` returns the machine, ``is_paused`` whether a client has paused it.
    """

    name = "machine"

    def __init__(self, machine: Callable[[], Machine], is_paused: Callable[[], bool]) -> None:
        self._machine, self._client_paused = machine, is_paused
        #: How migrations have ended, of which clients have not been told.
        self.ended: deque[str] = deque()
        self.gate = Gate()
        #: The state of the run as long as a migration has the machine, else an empty text.
        self.state = ""
        #: Why it is not known whether the machine may run.
        self.doubts = ""
        self.is_paused = False
        self._parameters: dict[str, Any] = {}
        self._outgoing: Outgoing | None = None
        self._progress: Progress | None = None
        self._thread: Thread | None = None
        self._moving: OwnLeaving | None = None

    # -- the subject ---------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[Leaving]:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        from dbt.hypervisor.migration import MigrationError

        try:
            with self.gate.passed():
                assert self._moving is not None
                if self._machine() is not self._moving.machine:
                    raise MigrationError("the machine has been reset")
                yield self._moving
        except ConnectionAbortedError as error:
            raise MigrationError(str(error)) from None

    def throttle(self, part: float | None) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`. A machine without a host has no share to be cut."""

    def suspend(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        self.is_paused = self._client_paused()
        self.state = SWITCHING

    def go_on(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        self.state = ""

    def doubt(self, why: str) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        self.doubts = why

    def give_up(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`. Clients may still look at the machine."""
        self.state = MOVED

    # -- the commands --------------------------------------------------------------------------

    def begin(self, uri: str) -> None:
        """Begin to migrate. Raise QmpError."""
        from dbt.hypervisor.migration import Outgoing, Place, Progress, Settings
        from dbt.hypervisor.migration.leaving import OwnLeaving

        if self._thread is not None and self._thread.is_alive():
            raise QmpError("There's a migration process in progress")
        if self.state:
            raise QmpError(self.doubts or "the machine has been migrated, and runs elsewhere")
        try:
            place = Place.parse(uri, str(self._parameters.get("tls-creds", "")))
        except WrongEndpoint as error:
            raise QmpError(str(error)) from None
        settings = Settings(throttles=False)
        if "downtime-limit" in self._parameters:
            settings = settings._replace(downtime_s=self._parameters["downtime-limit"] / _MS)
        if self._parameters.get("max-bandwidth"):
            settings = settings._replace(bandwidth=self._parameters["max-bandwidth"])
        self._moving, self._progress = OwnLeaving(self._machine()), Progress()
        self._outgoing = Outgoing(self, place.connect, settings, progress=self._progress)
        self._thread = Thread(target=self._run, args=(self._outgoing,), name="dbt-migration", daemon=True)
        self._thread.start()

    def _run(self, outgoing: Outgoing) -> None:
        from dbt.hypervisor.migration import MigrationError

        try:
            outgoing.run()
        except MigrationError:
            pass  # query-migrate says what has happened
        except Exception as error:  # of the host: it is this migration's, and not the guest's
            outgoing.progress.error = f"{type(error).__name__}: {error}"
            if self.state == SWITCHING:
                self.doubts = outgoing.progress.error
        self.ended.append(outgoing.progress.status.value)

    def cancel(self) -> None:
        """Cancel the migration, if the guest has not been stopped for it yet."""
        if self._outgoing is not None:
            self._outgoing.cancel()

    def query(self) -> Mapping[str, Any]:
        """Return what ``query-migrate`` answers."""
        progress = self._progress
        if progress is None:
            return {}
        found: dict[str, Any] = {
            "status": progress.status.value,
            "ram": {
                "transferred": progress.sent_bytes,
                "normal": progress.pages,
                "dirty-sync-count": progress.rounds,
                "dirty-pages-rate": int(progress.dirty_rate) >> 12,
                "remaining": progress.dirty_pages << 12,
                "mbps": progress.bandwidth * 8 / 1e6,
                "page-size": 4096,
                "total": self._machine().ram.size,
            },
        }
        if progress.total_s:
            found["total-time"] = round(progress.total_s * _MS)
        if progress.downtime_s:
            found["downtime"] = round(progress.downtime_s * _MS, 3)
        if progress.error:
            found["error-desc"] = progress.error
        return found

    def set_parameters(self, given: Mapping[str, Any]) -> None:
        """Note parameters of migrations to come. Raise QmpError."""
        for name, value in given.items():
            if name not in _PARAMETERS:
                raise QmpError(f"Parameter '{name}' is unexpected")
            if name == "tls-creds":
                if type(value) is not str:
                    raise QmpError("Invalid parameter type for 'tls-creds', expected: string")
            elif type(value) is not int or value < 0:
                raise QmpError(f"Invalid parameter type for '{name}', expected: integer")
        self._parameters.update(given)

    def query_parameters(self) -> Mapping[str, Any]:
        """Return what ``query-migrate-parameters`` answers."""
        return {"downtime-limit": 4, "max-bandwidth": 0, "tls-creds": "", **self._parameters}

    def force(self) -> None:
        """Let the machine run whose migration is undecided. Raise QmpError."""
        if not self.doubts:
            raise QmpError("there is no migration of which nobody knows where the machine is")
        machine = self._machine()
        try:
            machine.claim()
            machine.permit()
        except ValueError as error:
            raise QmpError(str(error)) from None
        self.state = self.doubts = ""

    def wait_undecided(self, why: str) -> None:
        """Have a machine that has come, and of which it is not known whether the source runs it."""
        self.state, self.doubts = WAITING, why
