"""The machine of a container's VM, and the port to its guest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, Self

from dbt.containers.runtime import jobs
from dbt.containers.runtime.checkpoint import PortState, SessionState
from dbt.containers.runtime.domains import ContainerDomains
from dbt.containers.runtime.port import AgentPort
from dbt.containers.runtime.questions import Answerer, Questions
from dbt.containers.runtime.resync import MAIN, Resync, Sessions
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.shares import domain_limits
from dbt.containers.runtime.spec import Ended, RuntimeFailure, Spec, VmEnded, machine_card
from dbt.hypervisor.carrier import VmLost
from dbt.hypervisor.lifecycle import DomainState, LifecycleError
from dbt.hypervisor.port_ring import PORT_RING, PieceRing
from dbt.linux.protocol import Frame, FromGuest, ProtocolError

_ANSWER_S: Final = 30.0
#: The exit code of a container that was killed.
KILLED: Final = 137
#: So much of the guest's stream is kept at most for lines that have no end yet.
_MOST_KEPT: Final = 1 << 18
_GONE: Final = frozenset({DomainState.DEFINED, DomainState.CRASHED})


class Follower(Protocol):
    """Who remembers what the next process has to know of a VM if this one is killed."""

    @property
    def has_unkept(self) -> bool:
        """True if something that was read of the VM would be lost with this process."""

    def wants_the_rest(self) -> bool:
        """Return whether what the container has written, and what it is about to send, is wanted after its end. This is
        asked once for a VM, and what is answered stays.
        """

    def note_place(self, position: int) -> None:
        """Hear up to where the guest's stream has been taken: :meth:`ContainerVm.attach` needs it."""

    def note_end(self, ended: Ended) -> None:
        """Hear how the container has ended. Its VM is about to end."""


class LinkedVm:
    """The domain of a container, and the sessions of its guest. All methods belong to one event loop."""

    #: The program of the container; one that has ended at once in a VM that was opened for a stopped container.
    main: Session

    def __init__(self, domains: ContainerDomains, spec: Spec) -> None:
        self.spec = spec
        self._domains = domains
        self._port = AgentPort(self._send)
        self._loop = asyncio.get_running_loop()
        self._is_gone = asyncio.Event()
        self._is_destroyed = asyncio.Event()
        self._destroying: asyncio.Task[None] | None = None
        self._is_watched = False  # a task waits for the container's program
        self._has_finished = asyncio.Event()  # the guest executes nothing any more that counts
        self._is_ending = False
        self._is_leaving = False  # it is being moved to another engine
        self._left_with: PortState | None = None  # where its port was when it was moved
        self._early: list[tuple[bytes, int]] | None = None  # what has come before it is known where frames begin
        self._early_size = 0
        self._reason = ""
        self._result: asyncio.Future[Ended] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resync: Resync | None = None  # while it is not known where frames begin
        self._asked: Resync | None = None
        self._unasked: Resync | None = None  # what a paused guest has to be asked when it goes on
        self._found: asyncio.Future[Sessions] = self._loop.create_future()
        self._adopts = False
        self._port.takers[FromGuest.SYNCED] = self._take_sessions
        self._port.takers[FromGuest.FINISHED] = self._take_finished
        self._questions = Questions(self._port.send)
        self._port.takers[FromGuest.ASKED] = self._questions.take
        self.domain = domains.define(spec.id, self._hear, **domain_limits(spec.limits))
        console = self.domain.console
        assert isinstance(console, PieceRing)
        console.take, console.lose, console.kept = self._take, self._lose, 0
        self._console = console
        self._follower: Follower | None = None

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check(self) -> None:
        if self._is_gone.is_set():
            raise VmEnded(f"the VM of the container {self.spec.id[:12]} has ended")

    @property
    def is_paused(self) -> bool:
        """True if the guest stands still, because its user has paused it."""
        return self.domain.state is DomainState.PAUSED

    @property
    def is_undecided(self) -> bool:
        """True if the guest stands still because nobody knows whether it runs elsewhere."""
        return self.domain.state is DomainState.UNDECIDED

    @property
    def is_unasked(self) -> bool:
        """True if it was another process's, and its guest has not gone on since."""
        return self._unasked is not None

    async def pause(self) -> None:
        """Let the guest stand still, at an instruction. Its time does not pass."""
        await self._change(self.domain.pause)

    async def resume(self, force: bool = False) -> None:
        """Let the guest go on; with ``force`` also one that is undecided, as it does not run elsewhere."""
        await self._change(lambda: self.domain.resume(force))

    async def _change(self, change: Callable[[], None]) -> None:
        self._check()
        try:
            await asyncio.to_thread(change)
        except (LifecycleError, VmLost, ValueError, OSError) as error:
            raise RuntimeFailure(str(error)) from None

    async def plug(self, cards: Mapping[int, int]) -> None:
        """Connect network cards, eth0 being 0, to unix stream sockets, of which the VM gets copies."""
        self._check()
        plugged = {machine_card(card): descriptor for card, descriptor in cards.items()}
        try:
            await asyncio.to_thread(self.domain.plug_cards, plugged)
        except (LifecycleError, VmLost, OSError) as error:
            raise RuntimeFailure(f"the network cards of the container cannot be connected: {error}") from None

    def serve_names(self, answerer: Answerer) -> None:
        """Answer questions about names, which programs ask at 127.0.0.11 from now on."""
        self._check()
        self._questions.serve(answerer)

    # -- its end -------------------------------------------------------------------------------

    async def destroy(self) -> None:
        """End the VM at once, and give back everything that it has of the host."""
        self._is_ending = True
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._destroy())
        await asyncio.shield(self._destroying)

    async def _destroy(self) -> None:
        await asyncio.to_thread(self._domains.forget, self.domain)
        self._end("the container's VM was ended")
        if not self._is_watched and not self._result.done():
            self._result.set_result(Ended(KILLED))
        self._is_destroyed.set()

    @property
    def is_ending(self) -> bool:
        """True if the VM has ended, or is about to."""
        return self._is_ending or self._is_gone.is_set()

    def when_gone(self, call: Callable[[Self], None]) -> None:
        """Have something called when nothing is left of the VM."""

        async def wait() -> None:
            await self.gone()
            call(self)

        self._spawn(wait())

    async def gone(self) -> None:
        """Return when nothing of the VM is left, and its disk can be used by another one."""
        await self._is_destroyed.wait()

    def _end(self, why: str) -> None:
        self._port.end(why)
        self._questions.forget()
        self._is_gone.set()
        self._has_finished.set()

    def _hear(self, state: DomainState, reason: str) -> None:
        if state in _GONE:
            if self._is_leaving and state is DomainState.DEFINED:
                self._left_with = self._port_state()
            self._reason = self._reason or reason
            self._end(f"the VM of the container {self.spec.id[:12]} has ended: {self._reason}")

    # -- the port ------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self.domain.console.send(data)

    def _take(self, data: bytes) -> None:
        """Take what the guest has sent, in the thread that executes it."""
        self._loop.call_soon_threadsafe(self._receive, data, self._console.written)

    def _receive(self, data: bytes, end: int) -> None:
        """Take what the guest has sent up to a position in its stream."""
        if self._is_gone.is_set():
            return
        if self._early is not None:
            self._early.append((data, end))
            self._early_size += len(data)
            if self._early_size > PORT_RING:
                self._break("the guest has sent more than fits before its port is known")
            return
        try:
            if self._resync is not None:
                found = self._resync.feed(data, end)
                if found is None:
                    return
                data, self._resync = found, None
                self._port.position = end - len(data)
            self._port.feed(data)
        except ProtocolError as error:
            self._break(str(error))
            return
        if "main" not in vars(self) or not self.main.has_unread:
            self._keep_from(self._port.position)

    def follow(self, follower: Follower) -> None:
        """Tell a follower what the next process has to know, from now on."""
        self._follower = follower
        if self._console.kept:
            follower.note_place(self._console.kept)

    def note_kept(self) -> None:
        """Hear that all is kept that has been read of the output of the container's own program."""
        if (position := self.main.read_to) is not None:
            self._keep_from(position)

    def _keep_from(self, position: int) -> None:
        """Let the process of the machine keep nothing of the stream before a position."""
        kept = self._console.kept or 0
        follower = self._follower
        if position > kept and (position - kept > _MOST_KEPT or follower is None or not follower.has_unkept):
            if follower is not None:
                follower.note_place(position)
            self._console.kept = position

    def _lose(self, count: int) -> None:
        """Hear, in the thread that executes the guest, that something it has sent is missing."""
        self._loop.call_soon_threadsafe(self._receive_gap, count)

    def await_place(self) -> None:
        """Keep what the guest sends, until it is known where it is in its stream."""
        self._early = []

    def _take_early(self) -> None:
        """Take what has been kept."""
        early, self._early = self._early or [], None
        for data, end in early:
            self._receive(data, end)

    def _receive_gap(self, count: int) -> None:
        if self._resync is None:
            self._break(f"{count} bytes of what the guest has sent are missing")

    def _break(self, why: str) -> None:
        """End a VM whose guest does what the agent does not do."""
        self._reason = why
        self._end(f"the VM of the container {self.spec.id[:12]} is ended: {why}")
        self._spawn(self.destroy())

    # -- sessions ------------------------------------------------------------------------------

    async def _answered(self, asked: Resync, adopts: bool = False) -> Sessions | None:
        """Ask the agent which sessions there are. Return None if it does not say so. ``adopts``: have these sessions
        before anything is taken that comes after the answer.
        """
        self._asked, self._found, self._adopts = asked, self._loop.create_future(), adopts
        self._send(asked.question)
        gone = self._loop.create_task(self._is_gone.wait())
        either: set[asyncio.Future[Any]] = {gone, self._found}
        await asyncio.wait(either, timeout=_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        return self._found.result() if self._found.done() else None

    def _take_sessions(self, answer: Frame) -> None:
        if self._asked is None or self._found.done():
            raise ProtocolError("the guest says which sessions there are, and nobody has asked")
        found = self._asked.sessions(answer)
        if not any(one.number == MAIN for one in found.sessions) and found.status is None:
            raise ProtocolError("the guest has no program")
        self._questions.forget()
        if self._adopts:
            self._adopt(found)
            self.main.find(self._asked.output)
        self._found.set_result(found)

    def _adopt(self, found: Sessions) -> None:
        """Have the sessions that there were. What others than the main one write is not for anybody any more."""
        for one in found.sessions:
            session = self._port.adopt(one.number)
            session.go_on(one.pid, one.credit, one.waiting)
            if one.number == MAIN:
                self.main = session
            else:
                self._spawn(jobs.drain(session))
        if found.status is not None:
            self.main = self._port.adopt(MAIN)
            self.main.have_ended(found.status)

    def _port_state(self) -> PortState:
        begun, sessions = self._port.state
        return PortState(begun, [SessionState(n, one.pid, *one.flow) for n, one in sessions.items() if one.pid])

    def _take_finished(self, one: Frame) -> None:
        if not self._is_ending:
            raise ProtocolError("the guest ends, and nobody has asked it to")
        self._has_finished.set()
