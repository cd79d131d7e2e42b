"""Consoles without input: a file that the guest's output goes to, and none at all."""

from __future__ import annotations

import os
import time
from os import PathLike

from dbt.host.console import HostConsole
from dbt.memory.closing import Closing


class OutputConsole(HostConsole):
    """A console whose output goes to the descriptor ``stdout``, and whose input has ended."""

    def __init__(self, stdout: int, stderr: int = 2) -> None:
        super().__init__(stdout=stdout, stderr=stderr)

    def read(self, size: int) -> bytes | None:
        self.flush()
        return b""

    def arrived(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    @property
    def ended(self) -> bool:
        return True


class FileConsole(OutputConsole, Closing):
    """A console whose output goes to a file, which is replaced. Its input has ended.

    What the guest writes to standard error, by semihosting, goes to the process's own. Raise OSError, or ValueError for
    a name with a NUL, if the file cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        super().__init__(self._file)

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._file >= 0:
            try:
                self.flush()
            finally:
                os.close(self._file)
                self._file = -1


class NullConsole(OutputConsole):
    """A console that takes all output and shows none. Its input has ended.

    What the guest writes to standard error, by semihosting, goes to the process's own.
    """

    def __init__(self) -> None:
        super().__init__(stdout=-1)

    def write(self, data: bytes) -> None:
        """Take ``data``, and forget it."""
