"""What a host's loop sleeps at."""

from __future__ import annotations

import os
import select
from threading import Timer
from time import monotonic, process_time

import pytest

from dbt.hypervisor.bell import Bell

_LONG_S = 30.0


def test_somebody_rings_before_or_while_one_waits() -> None:
    with Bell() as bell:
        bell.ring()
        bell.ring()
        assert not bell.wait(_LONG_S, {})
        timer = Timer(0.05, bell.ring)
        timer.start()
        started = monotonic()
        assert not bell.wait(_LONG_S, {})
        assert monotonic() - started < _LONG_S / 2
        timer.join()
        assert not bell.wait(0.0, {})


def test_an_event_outside_ends_the_wait() -> None:
    reader, writer = os.pipe()
    with Bell() as bell:
        assert not bell.wait(0.01, {reader: select.POLLIN})
        os.write(writer, b"x")
        assert bell.wait(_LONG_S, {reader: select.POLLIN})
        bell.ring()
        assert bell.wait(_LONG_S, {reader: select.POLLIN})  # the bell alone would be False
        assert not bell.wait(0.01, {})
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("seconds", [0.0004, 0.0037])
def test_a_wait_of_less_than_a_millisecond_is_one(seconds: float) -> None:
    with Bell() as bell:
        used, started = process_time(), monotonic()
        for _ in range(20):
            end = monotonic() + seconds
            while (left := end - monotonic()) > 0:
                bell.wait(left, {})
        assert monotonic() - started >= 20 * seconds
        assert process_time() - used < 10 * seconds  # it sleeps


def test_a_closed_bell_does_nothing() -> None:
    bell = Bell()
    bell.close()
    bell.ring()
    bell.close()
