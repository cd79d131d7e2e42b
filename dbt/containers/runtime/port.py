"""The port to the agent of a container's guest: sessions by their numbers, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dbt.containers.runtime.session import WINDOW, Session
from dbt.containers.runtime.spec import RuntimeFailure, VmEnded
from dbt.hypervisor.console_ring import ConsoleFull
from dbt.linux.container_request import ContainerRequest
from dbt.linux.protocol import Frame, FrameReader, FromGuest, ProtocolError

#: Sessions that the agent has at once.
SESSIONS: Final = 64


class AgentPort:
    """The sessions of one VM. ``transmit`` sends bytes to its guest, which arrive as a whole."""

    def __init__(self, transmit: Callable[[bytes], None]) -> None:
        self._transmit = transmit
        self._reader = FrameReader()
        #: How much of the guest's stream has been taken: its bytes up to the end of a frame.
        self.position = 0
        self._sessions: dict[int, Session] = {}
        self._ended = ""  # why the VM has ended
        self._held: list[bytes] | None = None  # what waits until it may be sent, if anything has to
        #: Take frames that belong to no session, by their kinds.
        self.takers: dict[FromGuest, Callable[[Frame], None]] = {FromGuest.READY: _refuse}

    def open(self, request: ContainerRequest) -> Session:
        """Start a program, or a job of the agent. Raise VmEnded, or RuntimeFailure if there are too many."""
        number = next((number for number in range(SESSIONS) if number not in self._sessions), None)
        if number is None:
            raise RuntimeFailure(f"there are {SESSIONS} programs in the container already that were started from here")
        request.limit_output(WINDOW)
        session = self._sessions[number] = Session(self, number, request.items)
        try:
            for piece in request.pieces(number):
                self.send(piece)
        except BaseException:
            del self._sessions[number]
            raise
        return session

    def adopt(self, number: int) -> Session:
        """Return a session that the agent has, from before this process."""
        return self._sessions.setdefault(number, Session(self, number, []))

    def feed(self, data: bytes) -> None:
        """Take what the guest has sent. Raise ProtocolError for what the agent does not send."""
        for one in self._reader.feed(data):
            self.position += one.size
            if (take := self.takers.get(one.kind)) is not None:
                take(one)
            elif (session := self._sessions.get(one.session)) is not None:
                session.take(one)
            else:
                raise ProtocolError(f"the guest sent a frame {one.kind.name} for session {one.session}, which is none")

    def end(self, why: str) -> None:
        """Hear that the VM has ended: so have all sessions."""
        self._ended = self._ended or why
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.lose(self._ended)

    # -- checkpoints ---------------------------------------------------------------------------

    def hold(self) -> None:
        """Send nothing from now on until :meth:`release`."""
        self._held = self._held or []

    def release(self) -> None:
        """Send what was to be sent meanwhile."""
        held, self._held = self._held or [], None
        for data in held:
            if not self._ended:
                self._transmit(data)

    @property
    def state(self) -> tuple[bytes, dict[int, Session]]:
        """The beginning of a frame that has come, and the sessions."""
        return self._reader.begun, dict(self._sessions)

    def begin_with(self, begun: bytes) -> None:
        """Go on where another one had got the beginning of a frame."""
        self._reader, self.position = FrameReader(begun), -len(begun)

    # -- implements dbt.containers.runtime.session.Port ------------------------------------------

    def send(self, data: bytes) -> None:
        if self._ended:
            raise VmEnded(self._ended)
        if self._held is not None:
            self._held.append(data)
            return
        try:
            self._transmit(data)
        except ConsoleFull as error:
            raise RuntimeFailure(f"the container's guest does not answer: {error}") from None

    def forget(self, number: int) -> None:
        self._sessions.pop(number, None)


def _refuse(one: Frame) -> None:
    raise ProtocolError("the guest has started again")
