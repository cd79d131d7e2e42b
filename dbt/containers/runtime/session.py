"""A program in a container, with its streams."""

from __future__ import annotations

from typing import Protocol


class Session(Protocol):
    """A program in a container. All methods belong to the event loop of its runtime."""

    #: Its process ID in the container.
    pid: int

    async def read(self) -> tuple[int, bytes] | None:
        """Return what it has written, with the number of the stream, 1 or 2 (a terminal has only 1). Return None when
        all of it has been read and the program has ended, or the VM has.

        The program waits when it has written more than a window that nobody reads.
        """

    async def write(self, data: bytes) -> None:
        """Give it input. Return when the guest has room for it. What a program that has ended does not read is lost."""

    def end_input(self) -> None:
        """Let its input end, after all that was written. A terminal has no end of input."""

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""

    async def kill(self, number: int) -> None:
        """Send a signal to its process."""

    async def wait(self) -> int:
        """Return its exit code when it has ended, as docker counts: 128 and the signal's number for a signal. Raise
        VmEnded if the VM ends before.
        """
