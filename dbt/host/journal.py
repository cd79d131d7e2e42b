"""The journal of what a guest learns of the host's files, by which the same instructions can be executed again.

Without a history (:mod:`dbt.vm.history`) the journal is off, and each operation is simply done. While it is kept, the
outcome of each operation on a file is noted, in order. When the machine has gone back, the same operations come again
in the same order. They get the outcomes that were noted, and the host's files are not touched.

It also says whether the machine *repeats* what it has done before. Output is not given to the console then, and no time
is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

_Answer = TypeVar("_Answer")
#: Bytes that an outcome takes, besides its data.
_OUTCOME_BYTES = 200


class JournalMismatch(RuntimeError):
    """Raised if a guest that repeats its instructions does not repeat its operations on files."""


class _Outcome(NamedTuple):
    """What an operation has returned, or the number of its OSError."""

    what: str
    answer: object
    errno: int = 0

    @property
    def size(self) -> int:
        return _OUTCOME_BYTES + (len(self.answer) if isinstance(self.answer, bytes) else 0)


class HostJournal:
    """The journal of one machine. It is off at first."""

    def __init__(self) -> None:
        self._is_kept = False
        self._outcomes: list[_Outcome] = []
        self._forgotten = 0  # outcomes before those, which are not needed any more
        self._next = 0  # the index in the list of the next one
        self._until: int | None = None
        self.size = 0  # in bytes of the host's memory, nearly

    def begin(self) -> None:
        """Keep the journal from now on. What it has is forgotten."""
        self.end()
        self._is_kept = True

    def end(self) -> None:
        """Turn the journal off."""
        self._is_kept, self._until = False, None
        self._outcomes.clear()
        self._forgotten += self._next
        self._next = self.size = 0

    # -- operations ----------------------------------------------------------------------------

    def ask(self, what: str, operation: Callable[[], _Answer]) -> _Answer:
        """Return what an operation returns, or raise its OSError. ``what`` names the operation."""
        if not self._is_kept:
            return operation()
        if self._next < len(self._outcomes):
            return cast("_Answer", self._noted(what))
        try:
            answer = operation()
        except OSError as error:
            self._note(_Outcome(what, None, error.errno or 0))
            raise
        self._note(_Outcome(what, answer))
        return answer

    def _note(self, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        self._next += 1
        self.size += outcome.size

    def _noted(self, what: str) -> object:
        outcome = self._outcomes[self._next]
        if outcome.what != what:
            raise JournalMismatch(f"the guest did {outcome.what} when it came here first, and does {what} now")
        self._next += 1
        if outcome.errno:
            raise OSError(outcome.errno, os.strerror(outcome.errno))
        return outcome.answer

    # -- where it stands -----------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Where the journal stands: a number for :meth:`go_back` and :meth:`forget`."""
        return self._forgotten + self._next

    def go_back(self, position: int) -> None:
        """Stand again where :attr:`position` was this."""
        if self._is_kept:
            self._next = position - self._forgotten

    def forget(self, position: int) -> None:
        """Give up what is before a position, to which nobody will go back."""
        count = position - self._forgotten
        self.size -= sum(outcome.size for outcome in self._outcomes[:count])
        del self._outcomes[:count]
        self._forgotten, self._next = position, self._next - count

    def cut(self) -> None:
        """Forget what is behind the present position. The machine does not repeat anything any more."""
        self.size -= sum(outcome.size for outcome in self._outcomes[self._next :])
        del self._outcomes[self._next :]
        self._until = None

    # -- repeating -----------------------------------------------------------------------------

    @property
    def repeats_until(self) -> int | None:
        """The icount up to which the machine repeats what it has done, or None if it does not repeat anything."""
        return self._until

    def repeat_until(self, icount: int) -> None:
        """Say that the machine has gone back, and repeats what it has done up to ``icount``."""
        self._until = icount

    def arrive(self, icount: int) -> None:
        """Say where the machine has arrived."""
        if self._until is not None and icount >= self._until:
            self._until = None
