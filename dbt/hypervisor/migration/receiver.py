"""Waiting for a migration: who listens, greets whoever connects, and says later what has become of it."""

from __future__ import annotations

import contextlib
import time
from queue import SimpleQueue
from threading import Thread
from typing import Final, Generic

from dbt.hypervisor.migration.arriving import Arrived, Maker
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.destination import Incoming
from dbt.hypervisor.migration.entrance import Entrance, Greeting, PlaceEntrance
from dbt.hypervisor.migration.errors import MigrationError, Undecided
from dbt.hypervisor.migration.messages import Kind
from dbt.hypervisor.migration.points import Point, Reached, ignore
from dbt.hypervisor.migration.transport import Place
from dbt.memory.closing import Closing

#: The seconds in which a source comes back after it was lost: a little more than it tries.
_DECISION_S: Final = 12.0
#: The seconds for which a source may ask whether the machine runs here, after it has been told.
_ANSWERING_S: Final = 60.0


class Receiver(Closing, Generic[Arrived]):
    """Listens at ``place`` for one machine, which ``maker`` makes. Raise OSError if the host refuses.

    :meth:`close` ends the listening, and gives a machine up that :meth:`receive` has not returned.
    """

    def __init__(
        self, place: Place | Entrance, maker: Maker[Arrived], reached: Reached = ignore, decision_s: float = _DECISION_S
    ) -> None:
        """``decision_s`` is for how many seconds a source that was lost may come back and say what it has decided."""
        self._entrance: Entrance = PlaceEntrance(place) if isinstance(place, Place) else place
        self._decision_s = decision_s
        self._maker, self._reached = maker, reached
        self._id = b""
        self._incoming: Incoming[Arrived] | None = None
        self._is_answering = False

    @property
    def address(self) -> str:
        """Where the source finds it."""
        return self._entrance.address

    @property
    def name(self) -> str:
        """What the source calls the machine."""
        return "" if self._incoming is None else self._incoming.name

    @property
    def is_paused(self) -> bool:
        """True if the user of the source has paused the machine that has come."""
        return self._incoming is not None and self._incoming.is_paused

    def receive(self, timeout: float | None = None) -> Arrived:
        """Wait for a source, and return its machine, which runs nowhere else.

        Raise TimeoutError if nobody has begun within so many seconds, MigrationError if nothing has come of it, and
        Undecided if it is not known whether the source has decided: see :meth:`force`.
        """
        channel = self._greeted(timeout)
        self._incoming = Incoming(channel, self._maker, self._reached)
        self._begin_answering()
        try:
            machine = self._incoming.receive()
            self._answer_later(channel)
        except Undecided:
            channel.close()
            found = self.await_decision(self._decision_s)
            if found is None:
                raise
            return found
        except BaseException:
            channel.close()
            self._incoming = None
            raise
        finally:
            if not self._is_answering:
                self._to_answer.put(None)
        return machine

    @property
    def undecided(self) -> Arrived | None:
        """The machine of an undecided migration, if there is one. It does not run."""
        return None if self._is_answering or self._incoming is None else self._incoming.machine

    def _greeted(self, timeout: float | None) -> Channel:
        """Return the channel of a source that begins a migration. Others get their answer."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self._entrance.accept(None if end is None else max(0.0, end - time.monotonic()))
            try:
                self._reached(Point.DESTINATION_CONNECTED)
                if not found.asks:
                    self._id = found.number
                    return found.channel
                found.channel.send(Kind.STANDING, {"standing": "unknown"})
                found.channel.close()
            except BaseException:
                found.channel.close()
                raise

    # -- an undecided migration ----------------------------------------------------------------

    def await_decision(self, timeout: float) -> Arrived | None:
        """Wait for the source to come back and say what it has decided. Return the machine if it is to run here, and
        None if nobody has come. Raise MigrationError if it does not run here; it has been given up.
        """
        assert self._incoming is not None
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            try:
                found = self._entrance.accept(left)
            except (TimeoutError, MigrationError):
                continue
            try:
                if (machine := self._hear_decision(found)) is not None:
                    return machine
            except Undecided:
                found.channel.close()
        return None

    def _hear_decision(self, found: Greeting) -> Arrived | None:
        assert self._incoming is not None
        channel = found.channel
        try:
            known = found.asks and found.number == self._id
            channel.send(Kind.STANDING, {"standing": "voted" if known else "unknown"})
            if not known:
                channel.close()
                return None
            channel.receive(Kind.COMMIT)
        except (MigrationError, OSError):
            channel.close()
            return None
        machine = self._incoming.commit(channel)
        self._answer_later(channel)
        return machine

    def force(self) -> Arrived:
        """Return the machine of an undecided migration, because the user knows that it does not run elsewhere. It is
        the caller's from now on.

        Raise DiskError or NetworkError if something that it needs is in use.
        """
        assert self._incoming is not None
        machine = self._incoming.force()
        self._incoming = None
        return machine

    # -- afterwards ----------------------------------------------------------------------------

    def _answer_later(self, channel: Channel) -> None:
        """Tell a source that has not heard so that the machine runs here, beside whatever this process does."""
        self._is_answering = True
        self._to_answer.put(channel)

    def _begin_answering(self) -> None:
        """Start the thread that will answer, before the guest stands still."""
        self._to_answer = SimpleQueue[Channel | None]()
        Thread(target=self._answer, args=(self._to_answer,), name="dbt-migration", daemon=True).start()

    def _answer(self, given: SimpleQueue[Channel | None]) -> None:
        channel = given.get()
        if channel is None:  # nothing has come of the migration
            return
        end = time.monotonic() + _ANSWERING_S
        with contextlib.closing(self._entrance), contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(MigrationError), channel:
                    channel.receive(Kind.DONE)
                    return
                if (left := end - time.monotonic()) <= 0:
                    return
                with contextlib.suppress(MigrationError):
                    found = self._entrance.accept(left)
                    channel = found.channel
                    known = found.asks and found.number == self._id
                    channel.send(Kind.STANDING, {"standing": "committed" if known else "unknown"})

    def refuse(self) -> None:
        """Let no source come any more, also while another thread waits for one in :meth:`receive`, which raises OSError
        then. A migration that has begun goes on.
        """
        self._entrance.close()

    def close(self) -> None:
        """Listen no longer, unless a source may still ask, and give up a machine that waits. A second call does
        nothing.
        """
        if not self._is_answering:
            self._entrance.close()
            if self._incoming is not None:
                self._incoming.give_up()
                self._incoming = None
