"""Times of what a guest does, taken outside: when a process prints a line, and what CPU time was used until then.

The guest's own clock is of no use here, because dbt's is virtual time.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from real_programs.processes import Times, wait_for_orphans

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CHUNK = 1 << 16
#: Bytes at the end of the output that are kept, to find lines that come in pieces and to show in messages.
_KEPT = 2048


class GuestError(Exception):
    """Raised if a guest does not do its work. The text says what it printed last."""


def _descendants(pid: int) -> Iterable[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # It has just ended.
        return
    for child in children:
        yield child
        yield from _descendants(child)


def time_used(started: float) -> Times:
    """Return the wall time since ``started``, and the CPU time of all descendants so far, ended ones included."""
    mine = os.times()
    user, system = mine.children_user, mine.children_system
    for pid in _descendants(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        user += (int(fields[11]) + int(fields[13])) / _TICKS_PER_SECOND
        system += (int(fields[12]) + int(fields[14])) / _TICKS_PER_SECOND
    return Times(time.perf_counter() - started, user, system)


def between(first: Times, last: Times) -> Times:
    """Return the times that passed from one moment to another."""
    return Times(last.wall - first.wall, last.user - first.user, last.system - first.system)


class Watch:
    """Commands that run together, of which the last prints the lines of ``expected`` in this order, and then ends.

    ``moments`` has the times at which they came, and at the start under the name ``b""``. The other processes are
    stopped at the end unless they have ended themselves.
    """

    def __init__(self, expected: Sequence[bytes]) -> None:
        self._expected = list(expected)
        self._tail = b""
        self.moments: dict[bytes, Times] = {}

    def run(
        self,
        commands: Sequence[Sequence[str]],
        environment: Mapping[str, str],
        timeout: float,
        made: Path | None = None,
    ) -> None:
        """Run them without input. Raise GuestError if a line does not come within ``timeout`` seconds.

        If a file ``made`` is given, the last one starts when the one before has made it anew.
        """
        if made is not None:
            made.unlink(missing_ok=True)
        started = time.perf_counter()
        self.moments[b""] = time_used(started)
        with ExitStack() as stack:
            process = None
            for number, words in enumerate(commands):
                is_last = number == len(commands) - 1
                if process is not None and is_last and made is not None:
                    _wait_for(made, process, timeout)
                process = subprocess.Popen(
                    words,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if is_last else subprocess.DEVNULL,
                    stderr=subprocess.STDOUT if is_last else subprocess.DEVNULL,
                )
                stack.callback(_stop, process)
            assert process is not None and process.stdout is not None
            self._read(process.stdout.fileno(), started, timeout)
        wait_for_orphans(timeout)
        if self._expected:
            text = self._tail.decode(errors="replace").replace("\r", "")[-600:]
            raise GuestError(f"{self._expected[0].decode()!r} did not come within {timeout:.0f} s; last came:\n{text}")

    def _read(self, descriptor: int, started: float, timeout: float) -> None:
        selector = selectors.DefaultSelector()
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := started + timeout - time.perf_counter()) > 0 and selector.select(left):
            data = os.read(descriptor, _CHUNK)
            if not data:
                return
            self._tail += data
            while self._expected and (at := self._tail.find(self._expected[0])) >= 0:
                self.moments[self._expected[0]] = time_used(started)
                self._tail = self._tail[at + len(self._expected.pop(0)) :]
            self._tail = self._tail[-_KEPT:]


def _wait_for(path: Path, maker: subprocess.Popen[bytes], timeout: float) -> None:
    end = time.perf_counter() + timeout
    while not path.exists():
        if (status := maker.poll()) is not None:
            raise GuestError(f"{maker.args!r} ended with status {status} and has not made {path}")
        if time.perf_counter() > end:
            raise GuestError(f"{path} was not made within {timeout:.0f} s")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Give a process a moment to end by itself, and then end it."""
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
