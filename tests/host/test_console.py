"""The process's own streams, through pipes."""

from __future__ import annotations

import fcntl
import os
import pty
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dbt.host.console import ConsoleError, HostConsole
from dbt.host.terminal import TerminalConsole


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


def test_streams_with_high_descriptors(high: Callable[[int], int]) -> None:
    stdin, typing = os.pipe()
    console = HostConsole(high(stdin))
    assert console.read(1) is None and not console.arrived() and not console.ended
    os.write(typing, b"abc")
    console.wait(10)
    assert console.arrived() and console.read(2) == b"ab" and console.read(2) == b"c"
    os.close(typing)
    assert console.ended and console.read(2) == b""


def test_a_terminal_with_high_descriptors(high: Callable[[int], int]) -> None:
    keyboard, line = pty.openpty()
    console = TerminalConsole(lambda: None, lambda: None, lambda: None, high(line))
    assert console.read(1) is None and not console.ended
    os.write(keyboard, b"x\n")
    console.wait(10)
    assert console.read(2) == b"x\n"
    os.close(keyboard)
    assert console.read(2) == b"" and console.ended


def test_a_full_stream_with_a_high_descriptor(high: Callable[[int], int]) -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    size = fcntl.fcntl(sink, fcntl.F_GETPIPE_SZ)
    os.write(sink, bytes(size))
    console = HostConsole(stdout=high(sink))
    console.write(b"x")
    with ThreadPoolExecutor(1) as reader:
        reader.submit(lambda: os.read(source, size))
        console.flush()
    assert os.read(source, size) == b"x"
    os.close(source)


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
