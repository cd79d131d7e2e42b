"""A console at which somebody types when the guest has printed what they wait for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dbt.host.console import CaptureConsole


class Typist(CaptureConsole):
    """``steps``: once the guest has printed the first of a pair, and not before the last keys, the second is typed."""

    def __init__(self, steps: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.steps = list(steps)
        #: When which keys were typed: the host's time and the process's, in seconds.
        self.times: list[tuple[float, float]] = []
        self._profile = 0

    @property
    def ended(self) -> bool:
        return not self.input and not self.steps

    def arrived(self) -> bool:
        self._type()
        return super().arrived()

    def wait(self, seconds: float) -> None:
        self._type()
        super().wait(seconds)

    def _type(self) -> None:
        if self.input or not self.steps:
            return
        awaited, keys = self.steps[0]
        found = self.output.find(awaited, self._profile)
        if found >= 0:
            self._profile = len(self.output)
            self.input = keys
            del self.steps[0]
            self.times.append((time.monotonic(), time.process_time()))


PROMPT = b"/ # "


def typed(commands: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """A line for each prompt of the shell."""
    return [(PROMPT, command.encode() + b"\n") for command in commands]
