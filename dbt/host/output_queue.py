"""The queue of a guest's output, which is given to the console between two slices.

A device access must not be interrupted because a pipe is broken or a user's console raises. So a guest's writes always
succeed, and an error of the host is raised from the run at a place where the guest can go on.
"""

from __future__ import annotations

from dbt.devices.output import OutputRing
from dbt.host.console import Console
from dbt.host.journal import HostJournal


class OutputQueue:
    """The bytes that ``console`` has not received yet, in their order. ``uart`` has the latest that a UART sent.

    While the machine repeats what it has done before, which ``journal`` knows, the console gets nothing again. If
    ``uart_is_log``, the guest's console is something else, and what the UART sends goes to its ``write_error``.
    """

    def __init__(self, console: Console, journal: HostJournal | None = None, uart_is_log: bool = False) -> None:
        self._console = console
        self._journal = journal if journal is not None else HostJournal()
        self._uart_is_log = uart_is_log
        self.uart = OutputRing()
        #: True until something is written, or collected from the UART.
        self.is_silent = True
        self._pieces: list[tuple[bool, bytearray]] = []  # whether it is for write_error, and the bytes

    def write(self, data: bytes) -> None:
        """Queue ``data`` for :meth:`dbt.host.console.Console.write`."""
        self._add(False, data)

    def write_error(self, data: bytes) -> None:
        """Queue ``data`` for :meth:`dbt.host.console.Console.write_error`."""
        self._add(True, data)

    def _add(self, is_error: bool, data: bytes) -> None:
        self.collect()
        self._append(is_error, data)

    def collect(self) -> None:
        """Queue what the UART has sent. An exception in the middle would lose it, so handlers of signals must wait."""
        if data := self.uart.take():
            self._append(self._uart_is_log, data)

    def _append(self, is_error: bool, data: bytes) -> None:
        self.is_silent = False
        if self._pieces and self._pieces[-1][0] is is_error:
            self._pieces[-1][1].extend(data)
        else:
            self._pieces.append((is_error, bytearray(data)))

    def deliver(self) -> None:
        """Give everything that was written or collected to the console.

        If it raises, what it did not take stays in the queue.
        """
        if self._journal.repeats_until is not None:
            self._pieces.clear()
        while self._pieces:
            is_error, data = self._pieces[0]
            if is_error:
                self._console.write_error(bytes(data))
            else:
                self._console.write(bytes(data))
            del self._pieces[0]
