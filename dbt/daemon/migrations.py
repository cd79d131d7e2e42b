"""Machines that are moved from one daemon to another: the verb ``migrate``, and who takes what another daemon sends."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Final

import msgspec

from dbt.daemon.definition import Definition, checked, plain, read_definition
from dbt.daemon.domains import RUNS, Domains
from dbt.daemon.errors import Conflict, DefinitionError, RequestError
from dbt.daemon.known_domains import Record
from dbt.daemon.machines import MachineMaker
from dbt.daemon.moves import Moved, Moves, Whose
from dbt.daemon.places import migration_socket
from dbt.daemon.settling import Settling
from dbt.daemon.views import Migration, MigrationReport
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.lifecycle import ALIVE, DomainState, LifecycleError
from dbt.hypervisor.migration import MigrationError, Place, Point, Progress, Settings, Undecided, points
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.entrance import Greeting, greet
from dbt.hypervisor.migration.messages import NUMBER_SIZE, Kind
from dbt.hypervisor.migration.transport import Door

#: Sources that connect at the same time. Others are sent away.
_MOST: Final = 16
#: Seconds until a source has begun that has been greeted.
_BEGINNING_S: Final = 30.0
#: The places at which one source may be asked.
_MOST_PEERS: Final = 4
_log = logging.getLogger(__name__)


class _About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a daemon says of a domain that it sends. ``made`` is the definition by which its machine was made, if the
    domain's has changed since. ``goes_on``: its guest goes on, although it has been paused.
    ``copies_storage``: its disks are copied. ``paused``: its user has paused it. ``asked_at``: where the daemon takes
    machines itself, and can be asked what has become of this one.
    """

    definition: dict[str, Any]
    persistent: bool
    goes_on: bool
    copies_storage: bool
    paused: bool
    asked_at: list[str]
    made: dict[str, Any] | None = None


class Migrations:
    """Sends machines of ``domains``, and takes those that come to the ``doors``, which are closed with it. Disks that
    are copied come into the directory ``disks``. ``moves`` remembers what becomes of machines.
    """

    def __init__(
        self, domains: Domains, machines: MachineMaker, doors: Sequence[Door], disks: str, moves: Moves
    ) -> None:
        self._domains, self._machines, self._doors, self._disks = domains, machines, doors, disks
        self._moves, self._settling = moves, Settling(domains, moves)
        self._entrances: dict[bytes, _Entrance] = {}  # by the numbers of migrations that are under way
        self._lock = Lock()
        self._room = BoundedSemaphore(_MOST)
        self._is_closing = False
        for door in doors:
            Thread(target=self._listen, args=(door,), name="dbt-migrations", daemon=True).start()

    def close(self) -> None:
        """Let no more machines in."""
        self._is_closing = True
        self._settling.close()
        for door in self._doors:
            door.close()

    # -- away ----------------------------------------------------------------------------------

    def migrate(self, name: str, wanted: Migration) -> MigrationReport:
        """Move a machine to another daemon. Raise Conflict if it stays, and also if nobody knows where it is."""
        record = self._domains.get(name)
        place = _place(wanted)
        if not wanted.leave_hubs:
            self._check_hubs(record)
        has_changed = record.made.machine != record.definition.machine
        if has_changed and wanted.copy_storage:
            raise Conflict(
                f"the definition of the domain {name} has changed since its machine was made, and --copy-storage "
                "copies the disks of the machine alone: change it back, or migrate with disks that both daemons see"
            )
        if wanted.undefine_source or not record.persistent:
            self._check_snapshots(record)
        stands = not wanted.live and record.domain.state in RUNS
        is_paused = record.domain.state is DomainState.PAUSED
        about = _About(
            plain(record.definition),
            wanted.persistent,
            stands,
            wanted.copy_storage,
            is_paused,
            self._asked_at(place),
            plain(record.made) if has_changed else None,
        )
        if stands:
            self._call(record, record.domain.pause)
        progress = Progress()
        settings = Settings(bandwidth=wanted.bandwidth, copies_storage=wanted.copy_storage)
        moved = Moved(
            os.urandom(NUMBER_SIZE),
            record.domain.uuid,
            is_source=True,
            whose=Whose.OPEN,
            peers=(place.text,),
            credentials=os.path.abspath(place.credentials) if place.credentials else "",
            plain=place.plain,
            persistent=not wanted.undefine_source,
            paused=is_paused,
        )
        try:
            self._send(record, place, settings, progress, msgspec.json.encode(about), moved)
        finally:
            if stands and record.domain.state is DomainState.PAUSED:
                record.domain.resume()
        if wanted.undefine_source:
            self._domains.undefine_moved(record)
        self._domains.settle(record)
        return MigrationReport(
            record.name,
            progress.rounds,
            progress.pages,
            progress.sent_bytes,
            progress.storage_bytes,
            progress.downtime_s,
            progress.total_s,
        )

    def _check_snapshots(self, record: Record) -> None:
        """Raise Conflict if a domain that is forgotten here has snapshots, as these do not go with its machine."""
        if count := self._domains.count_snapshots(record):
            raise Conflict(
                f"the domain {record.name} stays here: its {count} snapshots would be lost, as it is to be forgotten "
                f"here. `dbt vm snapshot-list {record.name}` shows them, and `dbt vm snapshot-delete` removes one; "
                "without --undefinesource, a domain that is defined stays with them"
            )

    def _check_hubs(self, record: Record) -> None:
        """Raise Conflict if the machine has a hub with others, which are not at that daemon's hub of that name."""
        if record.domain.state not in ALIVE:
            return
        hubs = _hubs(record)
        for other in self._domains.all():
            if other is not record and other.domain.state in ALIVE and (common := hubs & _hubs(other)):
                raise Conflict(
                    f"the domain {record.name} stays here: its network {min(common)} has {other.name}, too, and a hub "
                    "is of one daemon, so their connections would end. Connect them by tap:NAME or unix:PATH, or say "
                    "that it may leave them (--leave-hubs)"
                )

    def _send(
        self, record: Record, place: Place, settings: Settings, progress: Progress, about: bytes, moved: Moved
    ) -> None:
        """Move a machine, and remember what becomes of it. An attempt while another one is under way leaves nothing."""

        def reached(point: Point) -> None:
            if point is Point.SOURCE_CONNECTED:
                self._remember(moved)
            points.ignore(point)

        whose = Whose.HERE
        try:
            self._call(
                record, lambda: record.domain.migrate(place, settings, progress, reached, about, number=moved.number)
            )
            whose = Whose.THERE
        finally:
            if record.domain.state is DomainState.UNDECIDED:
                self._settling.begin(moved)
            else:
                self._moves.decide(moved.number, whose)

    def _remember(self, moved: Moved) -> None:
        try:
            self._moves.put(moved)
        except OSError as error:
            raise MigrationError(f"what becomes of the machine cannot be remembered: {error.strerror}") from None

    def _asked_at(self, place: Place) -> list[str]:
        """Return where the destination at ``place`` can ask this daemon."""
        return [door.address for door in self._doors if door.place.is_local == place.is_local]

    def resume(self, name: str, force: bool) -> None:
        """Let a guest that was suspended go on. For one that is undecided, ask the other daemon first, or run it with
        ``force``. Raise Conflict if it does not run here afterwards.
        """
        record = self._domains.get(name)
        if force or record.domain.state is not DomainState.UNDECIDED:
            was_undecided = record.domain.state is DomainState.UNDECIDED
            self._domains.resume(name, force)
            if was_undecided:
                self._settling.keep(record)
            return
        found = self._settling.ask_for(record)
        if record.domain.state is DomainState.UNDECIDED:
            raise Conflict(
                f"the domain {record.name} is undecided, and stays paused. {found}. If you know that it does not run "
                f"there, `dbt vm resume --force {record.name}` runs it here; if it does, or is to, "
                f"`dbt vm destroy {record.name}` gives it up here"
            )
        if record.domain.state not in ALIVE:
            raise Conflict(f"the domain {record.name} runs at the other daemon, which has said so, and not here")

    def _call(self, record: Record, work: Callable[[], None]) -> None:
        try:
            work()
        except Undecided as error:
            raise Conflict(f"the migration of the domain {record.name} is undecided: {error}") from None
        except (MigrationError, LifecycleError) as error:
            raise Conflict(f"the domain {record.name} stays here: {error}") from None

    # -- here ----------------------------------------------------------------------------------

    def _listen(self, door: Door) -> None:
        while not self._is_closing:
            try:
                connection = door.wait()
            except OSError as error:
                if not self._is_closing:
                    _log.error("no machines are taken at %s any more: %s", door.address, error.strerror)
                return
            if self._room.acquire(blocking=False):
                Thread(target=self._admit, args=(door, connection), name="dbt-migration", daemon=True).start()
            else:
                connection.close()

    def _admit(self, door: Door, connection: Any) -> None:
        """Hear who has connected. A source that comes back is led to its migration."""
        try:
            found = greet(door.channel(connection))
            with self._lock:
                entrance = self._entrances.get(found.number)
                if entrance is None and not found.asks:
                    entrance = self._entrances[found.number] = _Entrance(door.address)
                    is_new = True
                else:
                    is_new = False
            if entrance is None:
                self._settling.answer(found)
                return
            entrance.put(found)
        except (MigrationError, OSError) as error:
            _log.warning("a machine that was to come to %s does not: %s", door.address, error)
            return
        finally:
            self._room.release()
        if is_new:
            self._receive(found, entrance, door.place)

    def _receive(self, found: Greeting, entrance: _Entrance, place: Place) -> None:
        try:
            about = checked(_decoded(found.about), _About, "what the source says of the domain", ())
            definition = read_definition(about.definition)
            if definition.uuid is None:
                raise DefinitionError("the source does not say which UUID the domain has")
            definition = self._machines.check(definition)
            if about.made is not None:
                made = self._machines.check(definition.with_machine_of(read_definition(about.made)))
            else:
                if about.copies_storage:
                    definition = self._machines.with_disks_in(self._disks, definition)
                made = definition
            with self._empty_removed(definition), self._domains.expected(definition, made, about.persistent) as record:
                self._take(record, found, entrance, about, place)
                with suppress(LifecycleError):  # its guest may have been ended already
                    if about.goes_on and record.domain.state is DomainState.PAUSED:
                        record.domain.resume()
        except (RequestError, LifecycleError) as error:
            _log.error("a machine is refused: %s", error)
            _refuse(found.channel, str(error))
        except Undecided as error:
            _log.error("%s", error)
            self._forget(found.number)
            if (moved := self._moves.get(found.number)) is not None:
                self._settling.begin(moved)
            for one in entrance.left():
                with suppress(MigrationError):
                    self._settling.answer(one)
        except (MigrationError, TimeoutError) as error:  # which the source knows
            _log.error("%s", error)
            found.channel.close()
        except Exception:
            _log.exception("a machine is refused")
            _refuse(found.channel, "internal error: the log of its daemon has more")
        finally:
            entrance.end_when_closed(lambda: self._forget(found.number))

    @contextmanager
    def _empty_removed(self, definition: Definition) -> Iterator[None]:
        """Remove the directory for the copied disks of a machine if the block raises and none is in it."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                os.rmdir(os.path.join(self._disks, str(definition.uuid)))
            raise

    def _take(self, record: Record, found: Greeting, entrance: _Entrance, about: _About, place: Place) -> None:
        """Take a machine that comes, and remember what becomes of it."""
        moved = Moved(
            found.number,
            record.domain.uuid,
            is_source=False,
            whose=Whose.OPEN,
            peers=tuple(_askable(about.asked_at, found.channel, place)),
            credentials=place.credentials,
            plain=place.plain,
            persistent=about.persistent,
            paused=about.paused,
        )

        def reached(point: Point) -> None:
            if point is Point.DESTINATION_PREPARED:
                self._remember(moved)
            elif point is Point.DESTINATION_RUNNABLE:
                self._moves.decide(moved.number, Whose.HERE)
            points.ignore(point)

        try:
            record.domain.receive(entrance, _BEGINNING_S, self._machines.options(record.made), reached)
        except BaseException:
            if record.domain.state is not DomainState.UNDECIDED:
                self._moves.decide(moved.number, Whose.THERE)
            raise

    def _forget(self, number: bytes) -> None:
        with self._lock:
            self._entrances.pop(number, None)


class _Entrance:
    """The entrance of one migration: whoever comes to a door with its number."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._come = SimpleQueue[Greeting]()
        self._is_closed = False
        self._then: Callable[[], None] | None = None

    def put(self, found: Greeting) -> None:
        self._come.put(found)

    def accept(self, timeout: float | None) -> Greeting:
        """See :class:`dbt.hypervisor.migration.entrance.Entrance`."""
        try:
            return self._come.get(timeout=timeout)
        except Empty:
            raise TimeoutError("no source has come") from None

    def left(self) -> Iterator[Greeting]:
        """Yield those that have come, and that nobody has accepted."""
        with suppress(Empty):
            while True:
                yield self._come.get_nowait()

    def close(self) -> None:
        """See :class:`dbt.hypervisor.migration.entrance.Entrance`."""
        self._is_closed = True
        if self._then is not None:
            self._then()

    def end_when_closed(self, then: Callable[[], None]) -> None:
        """Call a function once this is closed, as it may be already."""
        self._then = then
        if self._is_closed:
            then()


def _hubs(record: Record) -> set[str]:
    try:
        vm = record.domain.vm
    except LifecycleError:  # it has ended just now
        return set()
    return {net.end for net in vm.facts.nets if net.end.startswith("hub:")}


def _place(wanted: Migration) -> Place:
    try:
        kind, _, path = wanted.destination.partition(":")
        if kind == "unix":
            return Place.parse(f"unix:{migration_socket(path)}", wanted.tls_creds or "")
        return Place.parse(wanted.destination, wanted.tls_creds or "", wanted.unsafe_tcp)
    except WrongEndpoint as error:
        raise DefinitionError(f"the destination {wanted.destination} is none: {error}") from None


def _askable(addresses: Sequence[str], channel: Channel, door: Place) -> Iterator[str]:
    """Yield where a source can be asked that has come through a door, of what it says itself: only by the way by which
    it has come, and by TCP at its own host.
    """
    for text in addresses[:_MOST_PEERS]:
        try:
            place = Place.parse(text, door.credentials, door.plain)
        except WrongEndpoint:
            continue
        if place.is_local == door.is_local:
            yield place.text if place.is_local else place.at(channel.peer).text


def _decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise DefinitionError("the source says nothing of the domain that this daemon understands") from None


def _refuse(channel: Channel, why: str) -> None:
    """Tell a source why its machine is not taken, once it has said what it is: before, it would not listen."""
    with suppress(MigrationError), channel:
        channel.receive(Kind.OFFER)
        channel.send(Kind.REFUSED, why)


def door_at(path: str) -> Door:
    """Return the door at a path of this user's, whose directory nobody else may enter."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return Door(Place.parse(f"unix:{path}"))
