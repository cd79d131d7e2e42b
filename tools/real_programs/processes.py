"""Whole processes: how long one takes, what CPU time it and all that it started take, and what it leaves behind."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


@dataclass(frozen=True)
class Times:
    """The times of a process in seconds. ``user`` and ``system`` include all its descendants, also orphans.

    ``wall`` ends when the process ends. A descendant that works on, as dbt's compiler does, is waited for afterwards.
    """

    wall: float
    user: float
    system: float

    def clock(self, name: str) -> float:
        """Return the time by the clock ``wall``, ``user``, ``system`` or ``cpu``, which is user and system together."""
        return {"wall": self.wall, "user": self.user, "system": self.system, "cpu": self.user + self.system}[name]


@dataclass(frozen=True)
class Ended:
    """A process that has ended, with what it wrote and the exit status, or None if it was still running."""

    times: Times
    status: int | None
    output: bytes
    errors: bytes


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends, so that its CPU time can be measured.

    Otherwise a process that outlives its parent belongs to the system's first process.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run_timed(words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float) -> Ended:
    """Run a command in ``folder`` without input. Precondition: this process has no other children, and adopts orphans.

    The command is killed after ``timeout`` seconds, and so is what it has left behind after as many more.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        # Popen.wait(timeout) would look only every 50 ms.
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        status = process.wait()
        wall = time.perf_counter() - started
        timer.cancel()
        timer.join()
        wait_for_orphans(timeout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times = Times(wall, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
        output.seek(0)
        errors.seek(0)
        return Ended(times, None if wall >= timeout else status, output.read(), errors.read())


def wait_for_orphans(timeout: float) -> None:
    """Wait for all children of this process, and kill those that still run after ``timeout`` seconds."""
    timer = threading.Timer(timeout, _kill_children)
    timer.start()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    timer.cancel()
    timer.join()


def _kill_children() -> None:
    for thread in Path("/proc/self/task").iterdir():
        for child in (thread / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in ``folder`` by its name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
