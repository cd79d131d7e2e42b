"""Signals during a run: their Python handlers are called between two slices.

A handler may raise, as that of Ctrl-C does, and Python calls handlers between any two of its own operations. An
exception in the middle of a device access would leave a guest that cannot go on. So while the main thread runs a
machine, each signal with a Python handler gets one that only takes note of it. The real handler is called between two
slices. While the host waits for input or writes output, handlers are called at once.

Blocking the signals would not help, because Python calls its handlers in the main thread whichever thread gets a
signal.

A host of many machines has one, too, for what it does between their slices (:class:`dbt.hypervisor.host.Host`). While
handlers wait for that one, those of the machines have nothing to do.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal takes 20 times as long, and there are 64 signals
import signal
import sys
from collections.abc import Callable
from threading import get_ident, main_thread
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
_NUMBERS = tuple(int(number) for number in signal.valid_signals())


_holders: list[SignalDeferral] = []  #: those whose note is the handler of signals, the innermost last


class SignalDeferral:
    """Delays the handlers of signals. Between :meth:`begin` and :meth:`end`, they wait from :meth:`hold` to
    :meth:`release`.

    In a thread other than the main one nothing is done, because Python calls no handlers there.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._seen: list[object] = []  # the handlers of all signals when they were looked at last
        self._kept: list[int] = []
        self._holding = False
        self._changed = False  # a handler has been called, and may have set others
        self._note = self.note

    @property
    def is_waiting(self) -> bool:
        """Return True if a handler waits to be called, whoever calls it."""
        return any(holder._kept for holder in _holders)

    def begin(self) -> None:
        """Let handlers wait from now on. :meth:`end` must follow, even if this is interrupted."""
        self._holding = True
        if get_ident() == main_thread().ident and not (_holders and _holders[-1]._holding):
            _holders.append(self)
            self._replace()

    def end(self) -> None:
        """Restore the handlers of the signals, unless others have been set, and call those that waited."""
        if self not in _holders:
            return
        self._holding = True
        try:
            self._restore()
        except BaseException:  # by a handler that has its signal back already
            self._restore()
            raise
        finally:
            _holders.remove(self)
            self._holding = False
        if self._kept:
            self._call_kept()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) is self._note:
                _signal.signal(number, handler)

    def hold(self) -> None:
        """Let handlers wait from now on."""
        self._holding = True
        if self._changed:
            self._changed = False
            self._replace()

    def release(self) -> None:
        """Call the handlers that waited, which may raise. From now on handlers do not wait."""
        self._holding = False
        if self._kept:
            self._call_kept()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal. This is the handler of all signals meanwhile."""
        if self._holding:
            self._kept.append(number)
        else:
            self._changed = True
            self._handlers[number](number, frame)

    def _call_kept(self) -> None:
        self._changed = True
        while self._kept:
            number = self._kept.pop(0)
            self._handlers[number](number, sys._getframe())

    def _replace(self) -> None:
        seen = list(map(_signal.getsignal, _NUMBERS))
        if seen != self._seen:
            self._seen = seen
            for number, handler in zip(_NUMBERS, seen, strict=True):
                if handler is not self._note:
                    self._handlers.pop(number, None)
                    if callable(handler):
                        self._handlers[number] = handler
        for number in self._handlers:
            _signal.signal(number, self._note)
