"""The destination of a migration: it takes a machine, proves that it has the very same, and runs it once told so.

All that comes is checked before it is used, as what comes from a snapshot file is. Memory is taken for what the offer
says alone, and the offer is compared with what this host gives at most.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Any, Final, Generic

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import StateError
from dbt.host.network import Handover
from dbt.hypervisor.migration.arriving import Arrived, Maker
from dbt.hypervisor.migration.arriving_storage import ArrivingStorage
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.errors import MigrationError, PeerGone, ProtocolError, Refused, Undecided
from dbt.hypervisor.migration.messages import Kind, Pages, layout_of, mapping, pending_of
from dbt.hypervisor.migration.page_tree import PageTree
from dbt.hypervisor.migration.points import Point, Reached, ignore
from dbt.hypervisor.migration.precopy import clear, put
from dbt.memory.ram import RamFile, RamLayout

_MOST_MEMORY: Final = 4 << 30
_ZERO_PAGE: Final = bytes(PAGE_SIZE)
#: The most bytes of frames that wait for a network card which is handed over.
_MOST_WAITING: Final = 4 << 20
#: Why a machine does not run whose destination has ended when it was about to say that it does.
_MAY_RUN_THERE: Final = (
    "it is not known whether the source has given this machine up, because this side has ended when it was taking it"
)


class Incoming(Generic[Arrived]):
    """One migration to this process, over a channel whose greeting has been answered.

    ``maker`` makes the machine. The offer may have ``most_memory`` bytes of RAM. ``reached`` is told of each point of
    the protocol.
    """

    def __init__(
        self,
        channel: Channel,
        maker: Maker[Arrived],
        reached: Reached = ignore,
        most_memory: int = _MOST_MEMORY,
    ) -> None:
        self._channel, self._maker, self._reached = channel, maker, reached
        self._most_memory = most_memory
        self._tree = PageTree()
        self._machine: Arrived | None = None
        self._storage: ArrivingStorage | None = None
        self._has_little_left = False  # pages that come from now on are not in the file
        self._late: dict[int, bytes] = {}  # such pages, as long as there is no machine
        self._has_voted = False
        #: What the source calls the machine, and whether its user has paused it.
        self.name = ""
        self.is_paused = False

    def receive(self) -> Arrived:
        """Return the machine, which runs nowhere else. The source has been told.

        Raise MigrationError if nothing has come of it, and Undecided if the source may or may not have decided. Then
        the machine waits: see :meth:`decide` and :meth:`give_up`.
        """
        collects = gc.isenabled()
        try:
            return self._receive()
        finally:
            if collects:
                gc.enable()

    def _receive(self) -> Arrived:
        try:
            self._prepare()
            self._receive_state()
            self._channel.send(Kind.VOTE, {})
            self._has_voted = True
            self._reached(Point.DESTINATION_VOTED)
            self._channel.receive(Kind.COMMIT)
        except BaseException as error:
            self._fail(error)
            raise
        return self.commit(self._channel)

    def _fail(self, error: BaseException) -> None:
        """Give everything up, unless the source may have decided."""
        if self._has_voted and isinstance(error, PeerGone):
            assert self._machine is not None
            why = (
                f"it is not known whether the machine {self.name} runs at the source, because {error}. It is paused "
                "here. If it does not run there, resume it here with force"
            )
            self._keep_storage()
            self._machine.doubt(why)
            raise Undecided(why) from None
        self.give_up()
        if not isinstance(error, (PeerGone, Refused)):
            with contextlib.suppress(MigrationError):
                self._channel.send(Kind.REFUSED, str(error) or type(error).__name__)
        if isinstance(error, (StateError, ValueError, OSError, RuntimeError)):
            raise MigrationError(f"the machine cannot be taken: {error}") from None

    # -- the offer -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        channel = self._channel
        _, body = channel.receive(Kind.OFFER)
        self._reached(Point.DESTINATION_HEARD_OFFER)
        offer = mapping(body, "the offer", name=str, values=bytes, regions=list, shares_memory=bool, storage=list)
        self.name = "".join(letter if letter.isprintable() else "?" for letter in offer["name"][:200])
        self._layout = layout = layout_of(offer["regions"])
        if layout.size > self._most_memory:
            raise MigrationError(
                f"the machine has {layout.size:,} bytes of RAM, and {self._most_memory:,} are possible"
            )
        self._file = self._memory(layout, offer["shares_memory"])
        if offer["storage"]:
            self._storage = ArrivingStorage(self._maker.drives, offer["storage"])
            self._reached(Point.DESTINATION_MADE_DISKS)
        if self._maker.is_early:
            self._machine = self._made(offer["values"])
        channel.send(Kind.ACCEPTED, {"storage": [] if self._storage is None else self._storage.wanted})
        self._reached(Point.DESTINATION_PREPARED)

    def _made(self, values: bytes) -> Arrived:
        machine = self._maker.prepare(values)
        if machine.layout != self._layout:
            machine.close()
            raise ProtocolError("the RAM of the offer is not that of its values")
        return machine

    def _memory(self, layout: RamLayout, is_shared: bool) -> RamFile:
        """Return the file for the content of RAM, which the source has sent if it ``is_shared``."""
        self._is_shared = is_shared
        if not is_shared:
            return RamFile(layout.end)
        if not self._channel.descriptors:
            raise ProtocolError("the source shares its memory and has not sent it")
        try:
            return RamFile.received(self._channel.descriptors.pop(0), layout.end)
        except ValueError as error:
            raise ProtocolError(f"the memory that the source shares cannot be used: {error}") from None

    # -- pages ---------------------------------------------------------------------------------

    def _receive_state(self) -> None:
        """Take pages and the state, and become the machine. Raise whatever is not as the source says."""
        channel = self._channel
        while True:
            kind, body = channel.receive(Kind.PAGES, Kind.BLOCKS, Kind.ROUND, Kind.LITTLE_LEFT, Kind.STATE)
            match kind:
                case Kind.BLOCKS:
                    self._take_blocks(body)
                case Kind.PAGES:
                    with_content = self._has_little_left or not self._is_shared
                    self._take_pages(Pages.unpack(body, self._layout, with_content))
                case Kind.ROUND:
                    self._reached(Point.DESTINATION_HEARD_ROUND)
                    self._end_round()
                    if self._storage is not None:
                        self._storage.flush()
                case Kind.LITTLE_LEFT:
                    self._freeze()
                    channel.send(Kind.ROUND_HEARD, {})
                    self._reached(Point.DESTINATION_HOLDS_MEMORY)
                case _:
                    break
        gc.disable()  # a collection could take longer than all that follows
        self._reached(Point.DESTINATION_HEARD_STATE)
        fields = {"values": bytes, "is_paused": bool, "pending": list, "ends": list, "storage": list}
        state = mapping(body, "the state", **fields)
        if self._storage is not None:
            self._storage.verify(state["storage"])
            self._reached(Point.DESTINATION_VERIFIED_DISKS)
        if not self._has_little_left:
            raise ProtocolError("the source sends the state before it has said that little is left")
        values = state["values"]
        if self._machine is None:
            self._machine = self._made(values)
            self._machine.hold(self._file)
            self._machine.put(self._late)
        pending, handed = pending_of(state["pending"]), self._handed(state["ends"])
        # A process that is to have the state is at it while both sides hash.
        self._machine.take_over(values, pending, handed, lambda: self._verify(values))
        self._reached(Point.DESTINATION_CLAIMED)
        self.is_paused = state["is_paused"]

    def _end_round(self) -> None:
        """Tell the source that this side has what it has sent: if little is left, once all of it is in its place,
        because the guest may be stopped next.
        """
        if not self._has_little_left:
            self._channel.send(Kind.ROUND_HEARD, {})
        self._tree.settle()
        if self._machine is not None:
            self._machine.settle()
        if self._has_little_left:
            self._channel.send(Kind.ROUND_HEARD, {})

    def _freeze(self) -> None:
        """Let the machine hold what has come of RAM. What comes from now on is put into it."""
        if self._has_little_left:
            raise ProtocolError("the source says twice that little is left")
        if self._is_shared and self._file.is_written:
            raise ProtocolError("the source may still write to the memory that it shares")
        self._has_little_left = True
        self._file.parts = _parts(self._tree)
        if self._machine is not None:
            self._machine.hold(self._file)

    def _take_pages(self, pages: Pages) -> None:
        """Note the content of pages. What is hashed is what the file, or the machine, has of them afterwards."""
        file, tree, at = self._file, self._tree, 0
        if self._has_little_left:
            self._put_late(pages)
        elif not self._is_shared:
            put(file, pages.runs, pages.content)
            clear(file, pages.cleared)
        is_in_file = self._is_shared and not self._has_little_left
        for page, count in pages.runs.runs():
            size = count << PAGE_SHIFT
            tree.update(page, file.get(Gpa(page << PAGE_SHIFT), size) if is_in_file else pages.content[at : at + size])
            at += size
        for page, count in pages.cleared.runs():
            tree.clear(page, count)

    def _put_late(self, pages: Pages) -> None:
        """Put pages into the machine, or keep them for it."""
        content = pages.content
        starts = range(0, len(content), PAGE_SIZE)
        found = {page: bytes(content[at : at + PAGE_SIZE]) for page, at in zip(pages.runs, starts, strict=True)}
        found.update(dict.fromkeys(pages.cleared, _ZERO_PAGE))
        if self._machine is None:
            self._late.update(found)
        else:
            self._machine.put(found)

    def _take_blocks(self, body: memoryview[int]) -> None:
        if self._storage is None:
            raise ProtocolError("the source sends disks of which it has said nothing")
        self._storage.take(body)
        self._reached(Point.DESTINATION_HEARD_BLOCKS)

    # -- the state -----------------------------------------------------------------------------

    def _verify(self, values: bytes) -> None:
        """Raise MigrationError unless the root of the state and of RAM is what the source has."""
        root = self._tree.root(values)
        _, body = self._channel.receive(Kind.ROOT)
        if mapping(body, "the hash", root=bytes)["root"] != root:
            raise MigrationError("the machine here would not be the one at the source: its hash is another one")
        self._reached(Point.DESTINATION_VERIFIED)

    def _handed(self, ends: list[Any]) -> list[Handover | None]:
        """Return the connections of network cards that the source hands over."""
        descriptors = self._channel.descriptors
        found: list[Handover | None] = []
        try:
            for end in ends:
                match end:
                    case None:
                        found.append(None)
                    case [bytes(received), bytes(waiting)] if len(received) + len(waiting) <= _MOST_WAITING:
                        if not descriptors:
                            raise ProtocolError("the source hands more networks over than it has sent")
                        found.append(Handover(descriptors.pop(0), received, waiting))
                    case _:
                        raise ProtocolError("what the source says of its networks makes no sense")
        except ProtocolError:
            for one in found:
                if one is not None:
                    os.close(one.descriptor)
            raise
        return found

    # -- the decision --------------------------------------------------------------------------

    def commit(self, channel: Channel) -> Arrived:
        """Let the machine run, and tell the source by this channel, which may be another one than before.

        Raise Undecided if the source is on this host and does not hear of it, because it goes on with the machine then.
        """
        machine = self._machine
        assert machine is not None
        self._reached(Point.DESTINATION_HEARD_COMMIT)
        if self._keep_storage():
            self._reached(Point.DESTINATION_KEPT_DISKS)
        machine.keep(_MAY_RUN_THERE)
        self._reached(Point.DESTINATION_RUNNABLE)
        try:
            channel.send(Kind.COMMITTED, {})
        except PeerGone as error:
            if channel.is_local:
                self._fail(error)
        self._reached(Point.DESTINATION_ACKNOWLEDGED)
        machine.permit()
        return machine

    def _keep_storage(self) -> bool:
        """Let the disks that have come be ordinary files. Return True if there are such."""
        if self._storage is None:
            return False
        self._storage.keep()
        return True

    def force(self) -> Arrived:
        """Return the machine of a migration that is undecided, because its user knows that it runs nowhere else.

        Raise DiskError or NetworkError if something that it needs is used, as by a machine that runs elsewhere.
        """
        machine = self._machine
        assert machine is not None
        machine.permit()
        return machine

    @property
    def machine(self) -> Arrived | None:
        """The machine as far as there is one. It does not run before the source has decided."""
        return self._machine

    def give_up(self) -> None:
        """Close the machine, which runs at the source or nowhere, and remove the disks that have come with it."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        if self._storage is not None:
            self._storage.close()


def _parts(tree: PageTree) -> list[tuple[int, int]]:
    """Return address and size of the parts of RAM that are not zero. To find them in the file takes a millisecond."""
    parts: list[tuple[int, int]] = []
    for page, count in tree.runs():
        start, size = page << PAGE_SHIFT, count << PAGE_SHIFT
        if parts and sum(parts[-1]) == start:
            start, size = parts[-1][0], parts.pop()[1] + size
        parts.append((start, size))
    return parts
