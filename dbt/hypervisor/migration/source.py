"""The source of a migration: it sends a machine that runs, stops it, and gives it up once it runs elsewhere.

The commit has two phases. In the first the destination says that it has the very state and everything that it needs to
run it. In the second the source decides: from then on its own machine does not run again, unless the destination says
that it has not begun, or has certainly ended. The source keeps the machine until the destination has acknowledged.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dbt.abi.layout import PAGE_SHIFT
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.convergence import Convergence
from dbt.hypervisor.migration.errors import MigrationError, PeerGone, ProtocolError, Refused, Undecided
from dbt.hypervisor.migration.messages import BATCH_PAGES, MAGIC, NUMBER_SIZE, VERSION, Kind, mapping
from dbt.hypervisor.migration.points import Point, Reached, ignore
from dbt.hypervisor.migration.precopy import PageSender
from dbt.hypervisor.migration.settings import DEFAULT_SETTINGS, Progress, Settings, Status
from dbt.hypervisor.migration.storage import FileFacts, StorageSender
from dbt.memory.ram import RamFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.hypervisor.migration.leaving import HandedOver, Leaving
    from dbt.hypervisor.migration.subject import Subject

#: The seconds that a destination has for its first turn before the machine here is closed, which takes as long, on a
#: processor that both want if they are on one host.
_BEGINNING_S: Final = 0.015
#: The seconds between two attempts to reach the destination again, or to have the disks back.
_AGAIN_S: Final = 0.2
#: The seconds in which disks are claimed back, which a destination that gives up may still have.
_CLAIMING_S: Final = 5.0


class Outgoing:
    """One migration of ``subject``. ``connect`` returns a new channel to the destination, and raises MigrationError.

    ``reached`` is told of each point of the protocol. ``about`` is what a host of the destination hears of the domain.
    ``number`` is a random one of 16 bytes by default.
    """

    def __init__(
        self,
        subject: Subject,
        connect: Callable[[], Channel],
        settings: Settings = DEFAULT_SETTINGS,
        reached: Reached = ignore,
        progress: Progress | None = None,
        about: bytes = b"",
        number: bytes | None = None,
    ) -> None:
        self.progress = progress if progress is not None else Progress()
        self._subject, self._connect, self._settings, self._reached = subject, connect, settings, reached
        self._id, self._about = number or os.urandom(NUMBER_SIZE), about
        self._file: RamFile | None = None
        self._disks: list[int] = []
        self._storage: StorageSender | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """End the migration, if the guest has not been stopped for it yet. Any thread may call it."""
        self._is_cancelled = True

    def run(self) -> None:
        """Migrate the machine. When this returns, it runs at the destination, and its subject has been given up.

        Raise MigrationError if it goes on here, and Undecided if nobody knows, in which case it is kept and paused.
        """
        progress, collects = self.progress, gc.isenabled()
        progress.began_s = time.monotonic()
        try:
            with self._connect() as channel:
                self._reached(Point.SOURCE_CONNECTED)
                self._run(channel)
            progress.status = Status.COMPLETED
        except Undecided as error:
            progress.status, progress.error = Status.UNDECIDED, str(error)
            raise
        except BaseException as error:
            progress.status = Status.CANCELLED if self._is_cancelled else Status.FAILED
            progress.error = str(error)
            raise
        finally:
            while self._disks:
                os.close(self._disks.pop())
            if collects:
                gc.enable()
            progress.total_s = time.monotonic() - progress.began_s

    def _run(self, channel: Channel) -> None:
        try:
            sender = self._offer(channel)
            machine, pages = self._send_running(channel, sender)
        except BaseException as error:
            _tell_abort(channel, error)
            self._end_epoch()
            raise channel.last_word(error) from None
        finally:
            self._subject.throttle(None)
        self._switch_over(channel, sender, machine, pages)

    def _end_epoch(self) -> None:
        """End the epoch of a machine that stays, if it is there."""
        with contextlib.suppress(MigrationError, RuntimeError), self._subject.held() as machine:
            machine.end_epoch()

    # -- while the guest runs ------------------------------------------------------------------

    def _offer(self, channel: Channel) -> PageSender:
        """Agree with the destination on what is sent."""
        hello = {"magic": MAGIC, "version": VERSION, "id": self._id, "asks": False, "about": self._about}
        channel.send(Kind.HELLO, hello)
        _, body = channel.receive(Kind.HELLO)
        mapping(body, "the greeting", magic=str, version=int)
        with self._subject.held() as machine:
            machine.check(channel.is_local)
            values = machine.values()
            layout = machine.layout
            self._machine = machine
            storage = self._begin_storage(machine)
        descriptors: tuple[int, ...] = ()
        if channel.is_local and self._settings.by_descriptor:
            self._file = RamFile(layout.end)
            descriptors = (self._file.handle,)
        offer = {
            "name": self._subject.name,
            "values": values,
            "regions": [[int(region.base), region.size, region.read_only] for region in layout.regions],
            "shares_memory": bool(descriptors),
            "storage": storage,
        }
        channel.send(Kind.OFFER, offer, descriptors)
        self._reached(Point.SOURCE_OFFERED)
        _, body = channel.receive(Kind.ACCEPTED)
        wanted = mapping(body, "the answer to the offer", storage=list)["storage"]
        if not all(type(one) is int and 0 <= one < len(self._disks) for one in wanted):
            raise ProtocolError("the destination wants disks that the machine does not have")
        if wanted:
            self._storage = StorageSender(channel, self._disks, wanted, self.progress)
        self._reached(Point.SOURCE_ACCEPTED)
        self.progress.status = Status.ACTIVE
        return PageSender(channel, self._file, self.progress, self._settings.bandwidth)

    def _begin_storage(self, machine: Leaving) -> list[list[list[int]]]:
        """Begin to note what is written to disks, if they are to be copied. Return what their files are, by disk."""
        if not self._settings.copies_storage:
            return []
        counts, self._disks = machine.begin_storage()
        facts = iter([FileFacts.of(handle) for handle in self._disks])
        return [[list(next(facts)) for _ in range(count)] for count in counts]

    def _send_disks(self, channel: Channel, storage: StorageSender) -> None:
        """Send disks until little of them is left, which the rounds of pages take along."""
        convergence, subject = Convergence(self._subject, self._settings, self.progress), self._subject
        while True:
            began, left = time.monotonic(), storage.left
            storage.send(self._settings.bandwidth)
            self._end_round(channel)
            self._reached(Point.SOURCE_SENT_DISKS)
            with subject.held() as machine:
                storage.note(machine.changed_blocks())
            if convergence.is_enough(left >> PAGE_SHIFT, storage.left >> PAGE_SHIFT, time.monotonic() - began):
                return

    def _end_round(self, channel: Channel, kind: Kind = Kind.ROUND) -> None:
        """Wait until the destination has all that was sent."""
        channel.send(kind)
        if self._storage is not None:
            self._storage.settle()
        channel.receive(Kind.ROUND_HEARD)
        if self._is_cancelled:
            raise MigrationError("the migration was cancelled")

    def _send_running(self, channel: Channel, sender: PageSender) -> tuple[Leaving, Sequence[int]]:
        """Send pages until few are left. Return the machine, whose guest is stopped, and these pages."""
        subject, storage = self._subject, self._storage
        if storage is not None:
            self._send_disks(channel, storage)
        convergence = Convergence(subject, self._settings, self.progress)
        pages: Sequence[int] = sender.begin(subject)
        has_little_left = False
        while True:
            began = time.monotonic()
            self._send_round(channel, sender, pages)
            seconds = time.monotonic() - began
            with subject.held() as machine:
                dirty = machine.dirty_pages(renews=False)
                left = len(dirty)
                if storage is not None:
                    storage.note(machine.changed_blocks())
                    left += storage.left >> PAGE_SHIFT
                if has_little_left and convergence.is_least(len(pages), left, seconds):
                    return self._stopped(machine), dirty
            if convergence.is_enough(len(pages), left, seconds) and not has_little_left:
                has_little_left = True
                sender.stop_sharing()
                self._end_round(channel, Kind.LITTLE_LEFT)
                self._reached(Point.SOURCE_HAS_LITTLE_LEFT)
            with subject.held() as machine:
                pages = machine.dirty_pages(renews=True)

    def _send_round(self, channel: Channel, sender: PageSender, pages: Sequence[int]) -> None:
        """Send pages of a guest that runs, and what it has written to disks. Return when the destination has them."""
        sender.send_round(self._subject, pages)
        if self._storage is not None:
            self._storage.send(self._settings.bandwidth)
        sender.tree.settle()
        if not channel.is_local:  # on one host, the destination reads what the host has in memory
            self._machine.sync_disks()
        self._end_round(channel)
        self.progress.rounds += 1
        self._reached(Point.SOURCE_SENT_ROUND)

    def _stopped(self, machine: Leaving) -> Leaving:
        """Stop the guest, which is held."""
        self._stopped_at = time.monotonic()
        gc.disable()  # a collection could take longer than all that follows
        self._subject.suspend()
        return machine

    # -- while it is stopped -------------------------------------------------------------------

    def _switch_over(self, channel: Channel, sender: PageSender, machine: Leaving, pages: Sequence[int]) -> None:
        """Send the rest and commit. The guest goes on here if that fails before the decision."""
        self.progress.status = Status.DEVICE
        try:
            self._reached(Point.SOURCE_STOPPED)
            self._send_rest(channel, sender, machine, pages)
            _, body = channel.receive(Kind.VOTE)
            mapping(body, "the vote")
            self._reached(Point.SOURCE_HEARD_VOTE)
        except BaseException as error:
            _tell_abort(channel, error)
            self._take_back(machine)
            raise channel.last_word(error) from None
        self._commit(channel, machine)

    def _send_rest(self, channel: Channel, sender: PageSender, machine: Leaving, pages: Sequence[int]) -> None:
        storage = self._storage
        handed = machine.release(pages[:BATCH_PAGES], channel.is_local, keeps_disks=bool(self._disks))
        try:
            sender.send_rest(machine, pages, handed.content)
            if storage is not None:
                storage.note(machine.changed_blocks())
                storage.send()
                self._reached(Point.SOURCE_SENT_LAST_BLOCKS)
            self._send_state(channel, machine, handed)
            channel.send(Kind.ROOT, {"root": sender.root(handed.values)})
            self._reached(Point.SOURCE_SENT_ROOT)
        finally:
            for end in handed.networks:
                if end is not None:
                    os.close(end.descriptor)

    def _send_state(self, channel: Channel, machine: Leaving, handed: HandedOver) -> None:
        self._reached(Point.SOURCE_RELEASED)
        ends = handed.networks
        state = {
            "values": handed.values,
            "is_paused": self._subject.is_paused,
            "pending": [list(one) for one in machine.pending],
            "storage": [] if self._storage is None else self._storage.states(),
            "ends": [None if end is None else [end.received, end.waiting] for end in ends],
        }
        channel.send(Kind.STATE, state, tuple(end.descriptor for end in ends if end is not None))
        self._reached(Point.SOURCE_SENT_STATE)

    def _take_back(self, machine: Leaving) -> None:
        """Let the guest go on here. Its disks may be the destination's for a moment."""
        deadline = time.monotonic() + _CLAIMING_S
        while True:
            try:
                machine.end_epoch()
                machine.claim()
                machine.permit()
            except RuntimeError:  # its process has ended, and its next turn says so
                self._subject.go_on()
                return
            except ValueError as error:  # of a disk or a network
                if time.monotonic() > deadline:
                    why = f"the migration has failed, and this machine's disks and networks are in use: {error}"
                    self._subject.doubt(why)
                    raise Undecided(why) from None
                time.sleep(_AGAIN_S)
            else:
                self._subject.go_on()
                return

    # -- the decision --------------------------------------------------------------------------

    def _commit(self, channel: Channel, machine: Leaving) -> None:
        """Let the destination run the machine. There is no way back without its word."""
        self._reached(Point.SOURCE_DECIDED)
        try:
            channel.send(Kind.COMMIT)
            self._reached(Point.SOURCE_COMMITTED)
            channel.receive(Kind.COMMITTED)
        except PeerGone as error:
            if channel.is_local and error.has_ended:
                # A destination that runs the machine has acknowledged before, on the same host without a loss.
                self._take_back(machine)
                raise
            self._resolve(machine, error)
        except MigrationError as error:  # which a destination that has voted does not send
            self._resolve(machine, error)
        self.progress.downtime_s = time.monotonic() - self._stopped_at
        self._reached(Point.SOURCE_HEARD_ACKNOWLEDGEMENT)
        time.sleep(_BEGINNING_S)
        with contextlib.suppress(MigrationError):  # the destination needs it only to stop waiting
            channel.send(Kind.DONE)
        self._subject.give_up()
        self._reached(Point.SOURCE_DISCARDED)

    def _resolve(self, machine: Leaving, error: MigrationError) -> None:
        """Ask the destination by another connection. Return if it runs the machine, and raise Undecided if it does not
        answer.
        """
        deadline = time.monotonic() + self._settings.asking_s
        while time.monotonic() < deadline:
            try:
                with self._connect() as channel:
                    standing = ask_standing(channel, self._id)
                    if standing == "voted":
                        self._commit_again(channel, machine)
                        standing = "committed"
                    if standing == "gone":
                        self._take_back(machine)
                        raise _TakenBack(MigrationError("the destination has ended, and has no machine any more"))
                    if standing == "committed":
                        with contextlib.suppress(MigrationError):
                            channel.send(Kind.DONE)
                        return
            except _TakenBack as taken:
                raise taken.why from None
            except MigrationError:
                pass  # what it says of itself does not count before the time is over
            time.sleep(_AGAIN_S)
        why = (
            f"it is not known whether the machine runs at the destination, because {error}. It is paused here. "
            "If it does not run there, resume it here with force"
        )
        self._subject.doubt(why)
        raise Undecided(why) from None

    def _commit_again(self, channel: Channel, machine: Leaving) -> None:
        """Tell a destination that waits to run the machine. Raise _TakenBack if it cannot any more."""
        channel.send(Kind.COMMIT)
        try:
            channel.receive(Kind.COMMITTED)
        except Refused as error:
            self._take_back(machine)
            raise _TakenBack(error) from None


class _TakenBack(Exception):
    """The destination has given the machine up, and it goes on here. ``why`` is the destination's word."""

    def __init__(self, why: MigrationError) -> None:
        super().__init__(str(why))
        self.why = why


def ask_standing(channel: Channel, number: bytes) -> str:
    """Return how far a migration has come at the other side. A destination says "voted", "committed", "gone" if it will
    never run the machine, or "unknown".
    """
    channel.send(Kind.HELLO, {"magic": MAGIC, "version": VERSION, "id": number, "asks": True, "about": b""})
    _, body = channel.receive(Kind.STANDING)
    return str(mapping(body, "the answer", standing=str)["standing"])


def _tell_abort(channel: Channel, error: BaseException) -> None:
    """Let the destination know why it will not get the machine, if it is there and does not know."""
    if not isinstance(error, (PeerGone, Refused)):
        with contextlib.suppress(MigrationError):
            channel.send(Kind.ABORT, f"the source has given up: {error}")
