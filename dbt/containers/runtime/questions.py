"""Questions about names that a container's guest asks, and the answers that are sent to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from dbt.containers.runtime.spec import RuntimeFailure
from dbt.linux.protocol import FRAME_MOST, QUESTIONS, Frame, ProtocolError, ToGuest, frame

#: Returns the answer to a question, or nothing. The second argument says that it may be longer than a datagram.
Answerer = Callable[[bytes, bool], Awaitable[bytes]]
_STREAM: Final = 2
_log = logging.getLogger(__name__)


class Questions:
    """The questions of one guest, each of which is answered once. ``send`` sends frames to it."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._answerer: Answerer | None = None
        self._asked: dict[int, asyncio.Task[None]] = {}

    def serve(self, answerer: Answerer) -> None:
        """Let the guest ask from now on."""
        self._answerer = answerer
        self._send(frame(ToGuest.NAMES))

    def take(self, one: Frame) -> None:
        """Take a question. Raise ProtocolError for what the agent does not ask."""
        if one.session >= QUESTIONS or one.stream not in (0, 1):
            raise ProtocolError("the guest asks for a name as the agent does not ask")
        if self._answerer is None:  # of a guest that has begun with another host
            self._send(frame(ToGuest.ANSWER, one.session))
            return
        if one.session not in self._asked:  # else it has been given up by the agent, and will be asked again
            answering = self._answer(self._answerer, one.session, one.value, bool(one.stream))
            task = self._asked[one.session] = asyncio.get_running_loop().create_task(answering)
            task.add_done_callback(lambda done: self._forget(one.session, done))

    def _forget(self, number: int, task: asyncio.Task[None]) -> None:
        if self._asked.get(number) is task:
            del self._asked[number]

    async def _answer(self, answerer: Answerer, number: int, question: bytes, is_stream: bool) -> None:
        try:
            answer = await answerer(question, is_stream)
        except Exception:  # whose defect it is, the guest is answered
            _log.exception("a question for a name cannot be answered")
            answer = b""
        if len(answer) > FRAME_MOST - _STREAM:
            answer = b""
        self._asked.pop(number, None)
        try:
            self._send(frame(ToGuest.ANSWER, number, answer))
        except RuntimeFailure:  # it has ended, or does not read: then it does not wait for this either
            return

    def forget(self) -> None:
        """Answer no questions that were asked before: the agent has forgotten them."""
        asked, self._asked = self._asked, {}
        for task in asked.values():
            task.cancel()
