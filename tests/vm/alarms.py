"""A signal whose handler raises, for tests of what a run leaves behind."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Alarm(Exception):
    pass


@contextmanager
def alarms() -> Iterator[None]:
    """Let the signal raise Alarm. No garbage is collected meanwhile: what is raised while a callback of the collector
    runs, of which Hypothesis has one, goes no further.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before, collects = signal.signal(signal.SIGALRM, ring), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if collects:
            gc.enable()
