"""What several tests of the host's side need."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def high() -> Iterator[Callable[[int], int]]:
    """Give a descriptor a number over 1023, as it has in a process that has many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    except ValueError:
        pytest.skip(f"the hard limit of open files is {hard} here, and a descriptor over 1023 is needed")
    made: list[int] = []

    def move(descriptor: int) -> int:
        made.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 1100))
        os.close(descriptor)
        return made[-1]

    yield move
    for descriptor in made:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
