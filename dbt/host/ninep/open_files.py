"""The files that a client has open, by the number of the request that opened each.

They are not state: a machine that is restored or goes back in time opens a file again by its path when it is used.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from dbt.host.ninep.messages import failure

#: Files that are open at most, so that other machines of the process have descriptors too.
MOST_OPEN: Final = 256


class OpenFiles:
    """Descriptors by serial. :meth:`close` closes them all."""

    def __init__(self) -> None:
        self._handles: dict[int, int] = {}

    def get(self, serial: int) -> int | None:
        return self._handles.get(serial)

    def check_room(self, in_use: Callable[[], set[int]]) -> None:
        """Raise OSError (EMFILE) if there is no room for one more. Those that are not ``in_use`` are closed then."""
        if len(self._handles) >= MOST_OPEN:
            for serial in self._handles.keys() - in_use():
                self.drop(serial)
            if len(self._handles) >= MOST_OPEN:
                raise failure(errno.EMFILE)

    def put(self, serial: int, handle: int) -> None:
        """Take over a descriptor. What had the serial in a past that was left is closed."""
        self.drop(serial)
        self._handles[serial] = handle

    def drop(self, serial: int) -> None:
        """Close a file if it is open."""
        handle = self._handles.pop(serial, None)
        if handle is not None:
            os.close(handle)

    def close(self) -> None:
        for serial in list(self._handles):
            self.drop(serial)

    def __del__(self) -> None:
        self.close()
