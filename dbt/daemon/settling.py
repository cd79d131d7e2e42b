"""Machines whose migration was cut off: each daemon asks the other one what has become of it, and answers.

Whoever is asked says what it remembers (:mod:`dbt.daemon.moves`):

- The destination: "voted" if its machine stands still and may be told to run, "committed" if it runs or has run there,
  "gone" if it never will.
- The source: "kept" if its machine goes on or will, "given up" if it never will, "undecided" if it does not know. Then
  it asks in its turn.
- "unknown": it has never heard of that migration.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

from dbt.daemon.domains import Domains
from dbt.daemon.errors import Conflict, NotFound, RequestError
from dbt.daemon.known_domains import Record
from dbt.daemon.moves import Moved, Moves, Whose
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.lifecycle import ALIVE, DomainState, LifecycleError
from dbt.hypervisor.migration import MigrationError, Place
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.entrance import Greeting
from dbt.hypervisor.migration.errors import Refused
from dbt.hypervisor.migration.messages import Kind
from dbt.hypervisor.migration.source import ask_standing

#: How long the other daemon is asked, in seconds, and how long after it has not answered.
_ASKING_S: Final = 120.0
_AGAIN_S: Final = 1.0
_NOT_HERE: Final = "it was migrated"
_log = logging.getLogger(__name__)


class Settling:
    """Settles the undecided migrations of ``domains`` that ``moves`` remembers. What this daemon finds undecided when
    this is made, it asks for.
    """

    def __init__(self, domains: Domains, moves: Moves) -> None:
        self._domains, self._moves = domains, moves
        self._asking = set[bytes]()
        self._lock = Lock()
        self._ends = Event()
        domains.decided = self._decided
        for moved in moves.all():
            self._find(moved)

    def close(self) -> None:
        """Ask no more."""
        self._ends.set()

    def _find(self, moved: Moved) -> None:
        """Find out, at the start of the daemon, what is left here of a migration. A destination that was about to say
        that it runs the machine, and has not let it run, is undecided, too.
        """
        state = self._state_of(moved)
        if state is DomainState.UNDECIDED and self._moves.last_of(moved.domain) == moved:
            self.begin(moved)
        elif moved.whose is Whose.OPEN:
            self._moves.decide(moved.number, Whose.HERE if state in ALIVE else Whose.THERE)

    def _state_of(self, moved: Moved) -> DomainState:
        try:
            return self._domains.get(str(moved.domain)).domain.state
        except NotFound:
            return DomainState.DEFINED

    def _decided(self, record: Record, is_here: bool) -> None:
        """Hear that a machine is undecided no more, whoever has decided."""
        moved = self._moves.last_of(record.domain.uuid)
        if moved is not None and moved.whose is Whose.OPEN:
            self._moves.decide(moved.number, Whose.HERE if is_here else Whose.THERE)

    # -- to ask --------------------------------------------------------------------------------

    def begin(self, moved: Moved) -> None:
        """Hear that a machine is undecided. Ask the other daemon beside everything else, until it has answered, or the
        time is over.
        """
        self._moves.decide(moved.number, Whose.OPEN)
        with self._lock:
            if moved.number in self._asking or not moved.peers:
                return
            self._asking.add(moved.number)
        Thread(target=self._run, args=(moved,), name="dbt-settling", daemon=True).start()

    def _run(self, moved: Moved) -> None:
        end = monotonic() + _ASKING_S
        try:
            while not self._ends.is_set() and monotonic() < end:
                with suppress(RequestError, LifecycleError):
                    self.ask(moved)
                if self._state_of(moved) is not DomainState.UNDECIDED:
                    return
                self._ends.wait(_AGAIN_S)
        finally:
            with self._lock:
                self._asking.discard(moved.number)

    def ask_for(self, record: Record) -> str:
        """Ask what has become of a domain that is undecided, once. Return what came of it, in words."""
        moved = self._moves.last_of(record.domain.uuid)
        if moved is None or not moved.peers:
            return "It is not known where the other daemon could be asked"
        answer = self.ask(moved)
        places = " or ".join(moved.peers)
        if not answer:
            return f"The other daemon does not answer at {places}"
        return f"The other daemon, at {places}, does not know either"

    def ask(self, moved: Moved) -> str:
        """Ask the other daemon, do what follows from its answer, and return that, or nothing if there was none."""
        for peer in moved.peers:
            try:
                place = Place.parse(peer, moved.credentials, moved.plain)
                with place.connect() as channel:
                    answer = ask_standing(channel, moved.number)
                    self._follow(moved, answer, channel)
                    return answer
            except (WrongEndpoint, MigrationError) as error:
                _log.info("%s does not say what has become of a machine: %s", peer, error)
        return ""

    def _follow(self, moved: Moved, answer: str, channel: Channel) -> None:
        with self._domains.use(str(moved.domain)) as record:
            if record.domain.state is not DomainState.UNDECIDED:
                return
            match answer:
                case "voted" if moved.is_source:
                    self._hand_over(record, moved, channel)
                case "committed" if moved.is_source:
                    self._leave(record, moved)
                case "gone" if moved.is_source:
                    self._run_here(record, moved)
                case "kept" if not moved.is_source:
                    self._leave(record, moved)
                case "given up" if not moved.is_source:
                    self._run_here(record, moved)

    def _hand_over(self, record: Record, moved: Moved, channel: Channel) -> None:
        """Tell the destination to run the machine, as it was to."""
        channel.send(Kind.COMMIT)
        try:
            channel.receive(Kind.COMMITTED)
        except Refused as error:  # it has given the machine up
            _log.warning("the domain %s goes on here: %s", record.name, error)
            self._run_here(record, moved)
        else:
            self._leave(record, moved)
            with suppress(MigrationError):
                channel.send(Kind.DONE)

    def _leave(self, record: Record, moved: Moved) -> None:
        _log.info("the domain %s runs at the other daemon", record.name)
        record.domain.give_up(_NOT_HERE)
        if moved.is_source and not moved.persistent:
            self._domains.undefine_moved(record)

    def _run_here(self, record: Record, moved: Moved) -> None:
        _log.info("the domain %s runs here", record.name)
        try:
            record.domain.resume(force=True)
        except ValueError as error:  # of a disk or a network
            raise Conflict(f"the domain {record.name} cannot run here: {error}") from None
        if moved.paused:
            record.domain.pause()
        self._keep(record, moved)

    def keep(self, record: Record) -> None:
        """Remember a machine of which its user has decided that it runs here."""
        moved = self._moves.last_of(record.domain.uuid)
        if moved is not None:
            with self._domains.use(record.name):
                self._keep(record, moved)

    def _keep(self, record: Record, moved: Moved) -> None:
        self._domains.keep(record, persistent=record.persistent if moved.is_source else moved.persistent)

    # -- to answer -----------------------------------------------------------------------------

    def answer(self, found: Greeting) -> None:
        """Say what has become of a migration, to whoever asks. Raise MigrationError if the connection is lost."""
        with found.channel as channel:
            moved = self._moves.get(found.number)
            if moved is None:
                channel.send(Kind.STANDING, {"standing": "unknown"})
            elif moved.is_source:
                words = {Whose.HERE: "kept", Whose.THERE: "given up", Whose.OPEN: "undecided"}
                channel.send(Kind.STANDING, {"standing": words[moved.whose]})
                if moved.whose is Whose.OPEN and self._state_of(moved) is DomainState.UNDECIDED:
                    self.begin(moved)
            elif moved.whose is Whose.OPEN:
                self._answer_open(moved, channel)
            else:
                standing = "committed" if moved.whose is Whose.HERE else "gone"
                channel.send(Kind.STANDING, {"standing": standing})

    def _answer_open(self, moved: Moved, channel: Channel) -> None:
        """Let the source decide about a machine that stands still here."""
        try:
            with self._domains.use(str(moved.domain)) as record:
                if record.domain.state is not DomainState.UNDECIDED:
                    channel.send(Kind.STANDING, {"standing": "unknown"})  # something is being done with it
                    return
                channel.send(Kind.STANDING, {"standing": "voted"})
                channel.receive(Kind.COMMIT)
                try:
                    self._run_here(record, moved)
                except Conflict as error:
                    record.domain.give_up(str(error))
                    channel.send(Kind.REFUSED, str(error))
                    return
                channel.send(Kind.COMMITTED, {})
        except RequestError as error:
            _log.error("%s", error)
