"""Consoles on which input comes while the guest runs."""

from __future__ import annotations

import random

from dbt.host.console import CaptureConsole


class Line(CaptureConsole):
    """A line on which more may come at any time."""

    @property
    def ended(self) -> bool:
        return False

    def read(self, size: int) -> bytes | None:
        return super().read(size) or None


class Trickle(Line):
    """A byte comes with one of so many looks at the line, by chance."""

    def __init__(self, data: bytes, seed: int) -> None:
        super().__init__()
        self.coming, self.random = data, random.Random(seed)

    def arrived(self) -> bool:
        if self.coming and not self.random.randrange(5):
            self.input, self.coming = self.input + self.coming[:1], self.coming[1:]
        return super().arrived()
