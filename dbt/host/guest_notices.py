"""Notices to the user about what a guest does. A guest cannot make them many, whatever numbers it chooses."""

from __future__ import annotations

from collections.abc import Callable

#: How many different notices of a kind a user gets in the life of a machine.
NOTICES_PER_KIND = 16


class GuestNotices:
    """Passes each notice of one kind on to ``notice`` once, and no more than NOTICES_PER_KIND of them.

    One more line, about ``what`` in general, says that the others are not reported. ``what`` is a plural.
    """

    def __init__(self, notice: Callable[[str], None], what: str) -> None:
        self._notice = notice
        self._what = what
        self._told: set[object] = set()

    def tell(self, key: object, line: str) -> None:
        """Pass ``line`` on, unless there was a notice with this key or there were too many."""
        if key in self._told or len(self._told) > NOTICES_PER_KIND:
            return
        self._told.add(key)
        if len(self._told) > NOTICES_PER_KIND:
            line = f"there are more than {NOTICES_PER_KIND} {self._what}: no more of them are reported"
        self._notice(line)
