"""What a guest writes waits here until the console can be given it, between two slices.

A device access must not end in the middle because a pipe is broken or a console of the user's own raises. So a guest's
writes always succeed, and the host's errors come out of the run where the guest can go on.
"""

from __future__ import annotations

from dbt.host.console import Console


class OutputQueue:
    """The bytes that ``console`` has not been given yet, in their order."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pieces: list[tuple[bool, bytearray]] = []  # whether it is for write_error, and the bytes

    def write(self, data: bytes) -> None:
        """Queue ``data`` for :meth:`dbt.host.console.Console.write`."""
        self._add(False, data)

    def write_error(self, data: bytes) -> None:
        """Queue ``data`` for :meth:`dbt.host.console.Console.write_error`."""
        self._add(True, data)

    def _add(self, is_error: bool, data: bytes) -> None:
        if self._pieces and self._pieces[-1][0] is is_error:
            self._pieces[-1][1].extend(data)
        else:
            self._pieces.append((is_error, bytearray(data)))

    def deliver(self) -> None:
        """Give the console everything. What it raised for stays in the queue."""
        while self._pieces:
            is_error, data = self._pieces[0]
            if is_error:
                self._console.write_error(bytes(data))
            else:
                self._console.write(bytes(data))
            del self._pieces[0]
