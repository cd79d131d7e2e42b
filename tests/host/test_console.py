"""The process's own streams, through pipes."""

from __future__ import annotations

import os

import pytest

from dbt.host.console import ConsoleError, HostConsole


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_output_is_kept_until_flushed_read_or_large() -> None:
    source, sink = os.pipe()
    stdin, typing = os.pipe()
    console = HostConsole(stdin, sink)
    console.write(b"a\xff\r\n")
    assert drain(source) == b""
    console.flush()
    assert drain(source) == b"a\xff\r\n"
    console.write(b"prompt")
    os.write(typing, b"answer")
    assert console.read(3) == b"ans"
    assert drain(source) == b"prompt"
    console.write(bytes(20000))
    console.write(b"more")
    assert len(drain(source)) == 20000


def test_errors_do_not_overtake_output() -> None:
    source, sink = os.pipe()
    console = HostConsole(stdout=sink, stderr=sink)
    console.write(b"out")
    console.write_error(b"err")
    assert drain(source) == b"outerr"


def test_reading_distinguishes_nothing_yet_from_the_end() -> None:
    stdin, typing = os.pipe()
    console = HostConsole(stdin)
    assert console.read(1) is None
    os.close(typing)
    assert console.read(1) == b""
    os.close(stdin)
    assert console.read(1) == b""


def test_a_reader_that_is_gone_and_a_full_disk() -> None:
    source, sink = os.pipe()
    os.close(source)
    console = HostConsole(stdout=sink)
    console.write(b"x")
    with pytest.raises(BrokenPipeError):
        console.flush()
    with open("/dev/full", "wb") as full:
        console = HostConsole(stdout=full.fileno())
        console.write(b"x")
        with pytest.raises(ConsoleError, match="No space left"):
            console.flush()
