"""Each semihosting operation as a guest calls it: a number, a parameter block in RAM, an answer."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gpa
from dbt.board import clock
from dbt.host.console import CaptureConsole
from dbt.host.guest_notices import NOTICES_PER_KIND
from dbt.host.jail import FileJail
from dbt.host.output_queue import OutputQueue
from dbt.host.semihosting import FAILED, GuestExit, Layout, Semihosting, join_arguments
from dbt.host.streams import InputPending
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from dbt.memory.virtual import VirtualMemory

RAM = 1 << 16
BLOCK, TEXT, BUFFER = 0x100, 0x200, 0x1000
OPEN, CLOSE, WRITEC, WRITE0, WRITE, READ, READC, ISERROR, ISTTY, SEEK = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
FLEN, TMPNAM, REMOVE, RENAME, CLOCK, TIME, SYSTEM, ERRNO = 12, 13, 14, 15, 16, 17, 18, 19
GET_CMDLINE, HEAPINFO, EXIT, EXIT_EXTENDED, ELAPSED, TICKFREQ = 21, 22, 24, 32, 48, 49


class Guest:
    """Calls operations from a memory of its own."""

    def __init__(self, files: Path | None = None, input_: bytes = b"") -> None:
        self.memory = GuestMemory(Ram(RAM))
        self.console = CaptureConsole(input_)
        self.icount = 0
        self.notices: list[str] = []
        jail = None if files is None else FileJail(str(files))
        self._output = OutputQueue(self.console)
        virtual = VirtualMemory(self.memory)
        self.host = Semihosting(virtual, self._output, self._receive, lambda: self.icount, jail, self.notices.append)

    def _receive(self, size: int) -> bytes | None:
        return self.console.read(size)

    def call(self, operation: int, *words: int) -> int | GuestExit:
        self.memory.write_ram(Gpa(BLOCK), struct.pack(f"<{len(words)}I", *words))
        return self.ask(operation, BLOCK)

    def ask(self, operation: int, parameter: int) -> int | GuestExit:
        """R0 and R1 of the call go in."""
        answer = self.host.call(operation, parameter)
        self.deliver()
        return answer

    def deliver(self) -> None:
        self._output.deliver()

    def named(self, operation: int, name: bytes, *more: int) -> int | GuestExit:
        self.memory.write_ram(Gpa(TEXT), name + b"\0")
        return self.call(operation, TEXT, *more, len(name))

    def open(self, name: bytes, mode: int) -> int:
        handle = self.named(OPEN, name, mode)
        assert isinstance(handle, int)
        return handle

    def write(self, handle: int, data: bytes) -> int | GuestExit:
        self.memory.write_ram(Gpa(BUFFER), data)
        return self.call(WRITE, handle, BUFFER, len(data))

    def read(self, handle: int, size: int) -> bytes:
        left = self.call(READ, handle, BUFFER, size)
        assert isinstance(left, int) and left <= size
        return self.memory.read_ram(Gpa(BUFFER), size - left)

    @property
    def errno(self) -> int:
        answer = self.host.call(ERRNO, 0)
        assert isinstance(answer, int)
        return answer


# -- the console ---------------------------------------------------------------------------------


def test_characters_and_strings_reach_the_console() -> None:
    guest = Guest()
    guest.memory.write_ram(Gpa(TEXT), b"Hello\xff\0rest")
    assert guest.ask(WRITE0, TEXT) == 0
    guest.ask(WRITEC, TEXT)
    assert guest.console.output == b"Hello\xffH"


def test_a_string_may_end_at_the_end_of_ram_but_not_beyond() -> None:
    guest = Guest()
    guest.memory.write_ram(Gpa(RAM - 4), b"end\0")
    assert guest.ask(WRITE0, RAM - 4) == 0
    guest.memory.write_ram(Gpa(RAM - 4), b"ends")
    assert guest.ask(WRITE0, RAM - 4) == FAILED
    assert guest.console.output == b"end"


def test_tt_is_standard_input_output_and_error_by_its_mode() -> None:
    guest = Guest(input_=b"typed")
    stdin, stdout, stderr = guest.open(b":tt", 0), guest.open(b":tt", 4), guest.open(b":tt", 8)
    assert len({0, stdin, stdout, stderr}) == 4
    assert guest.write(stdout, b"out") == 0 and guest.write(stderr, b"err") == 0
    assert guest.console.output == b"out" and guest.console.errors == b"err"
    assert guest.read(stdin, 3) == b"typ" and guest.read(stdin, 3) == b"ed" and guest.read(stdin, 3) == b""
    assert guest.write(stdin, b"x") == FAILED and guest.errno == errno.EBADF
    assert guest.call(READ, stdout, BUFFER, 1) == FAILED
    assert [guest.call(ISTTY, handle) for handle in (stdin, stdout, stderr)] == [1, 1, 1]
    assert guest.call(SEEK, stdout, 0) == FAILED and guest.errno == errno.ESPIPE
    assert guest.call(FLEN, stdout) == 0


def test_reading_a_character() -> None:
    guest = Guest(input_=b"a")
    assert guest.ask(READC, 0) == ord("a")
    assert guest.ask(READC, 0) == FAILED


def test_input_that_is_not_there_yet_leaves_the_call_to_be_repeated() -> None:
    guest = Guest()
    stdin = guest.open(b":tt", 0)
    guest.console.read = lambda size: None  # type: ignore[method-assign]
    for operation, words in ((READC, ()), (READ, (stdin, BUFFER, 1))):
        with pytest.raises(InputPending):
            guest.call(operation, *words)


# -- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_read_sought_and_measured(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    handle = guest.open(b"file", 6)  # w+
    assert guest.write(handle, b"0123456789") == 0
    assert guest.call(FLEN, handle) == 10 and guest.call(ISTTY, handle) == 0
    assert guest.call(SEEK, handle, 4) == 0
    assert guest.read(handle, 3) == b"456" and guest.read(handle, 100) == b"789"
    assert guest.call(READ, handle, BUFFER, 5) == 5
    assert guest.call(CLOSE, handle) == 0 and guest.call(CLOSE, handle) == FAILED
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("mode", "result"),
    [(0, None), (2, b"XYcd"), (4, b"XY"), (6, b"XY"), (8, b"abcdXY"), (10, b"abcdXY"), (11, b"abcdXY")],
)
def test_modes(tmp_path: Path, mode: int, result: bytes | None) -> None:
    (tmp_path / "file").write_bytes(b"abcd")
    guest = Guest(tmp_path)
    handle = guest.open(b"file", mode)
    written = guest.write(handle, b"XY")
    guest.call(CLOSE, handle)
    assert (written == 0) == (result is not None)
    assert (tmp_path / "file").read_bytes() == (result or b"abcd")


@pytest.mark.parametrize("mode", range(12))
def test_only_writing_modes_create(tmp_path: Path, mode: int) -> None:
    guest = Guest(tmp_path)
    handle = guest.open(b"new", mode)
    assert (handle != FAILED) == (mode >= 4) == (tmp_path / "new").exists()
    assert mode >= 4 or guest.errno == errno.ENOENT


def test_without_files_nothing_is_opened_and_the_user_is_told_once() -> None:
    guest = Guest()
    for _ in range(2):
        assert guest.open(b"/etc/passwd", 0) == FAILED
    assert guest.errno == errno.EACCES
    assert guest.named(REMOVE, b"x") == FAILED
    assert len(guest.notices) == 1 and "--files" in guest.notices[0]


def test_the_jail_holds(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "jail").mkdir()
    guest = Guest(tmp_path / "jail")
    for name in (b"../secret", b"/etc/passwd", bytes(str(tmp_path / "secret"), "ascii")):
        assert guest.open(name, 0) == FAILED and guest.errno == errno.EACCES
        assert guest.named(REMOVE, name) == FAILED and guest.errno == errno.EACCES


def test_removing_and_renaming(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("text")
    guest = Guest(tmp_path)
    guest.memory.write_ram(Gpa(TEXT), b"old\0new\0")
    assert guest.call(RENAME, TEXT, 3, TEXT + 4, 3) == 0
    assert (tmp_path / "new").read_text() == "text"
    assert guest.call(REMOVE, TEXT + 4, 3) == 0
    assert guest.call(REMOVE, TEXT + 4, 3) == FAILED and guest.errno == errno.ENOENT


def test_a_temporary_name_depends_on_its_number_alone() -> None:
    guest = Guest()
    assert guest.call(TMPNAM, BUFFER, 7, 20) == 0
    assert guest.memory.read_ram(Gpa(BUFFER), 11) == b"dbt007.tmp\0"
    assert guest.call(TMPNAM, BUFFER, 7, 5) == FAILED


def test_handles_are_limited_and_reused() -> None:
    guest = Guest()
    handles = [guest.open(b":tt", 0) for _ in range(64)]
    assert FAILED not in handles and len(set(handles)) == 64
    assert guest.open(b":tt", 0) == FAILED and guest.errno == errno.EMFILE
    assert guest.call(CLOSE, handles[10]) == 0
    assert guest.open(b":tt", 0) == handles[10]


def test_the_feature_bytes() -> None:
    guest = Guest()
    handle = guest.open(b":semihosting-features", 0)
    assert guest.call(FLEN, handle) == 5 and guest.call(ISTTY, handle) == 0
    assert guest.read(handle, 10) == b"SHFB\x03"
    assert guest.call(SEEK, handle, 4) == 0 and guest.read(handle, 10) == b"\x03"
    assert guest.write(handle, b"x") == FAILED
    assert guest.open(b":semihosting-features", 4) == FAILED


# -- time ----------------------------------------------------------------------------------------


def test_time_is_the_instruction_count() -> None:
    guest = Guest()
    guest.icount = 250_000_000
    assert guest.ask(CLOCK, 0) == 250
    assert guest.ask(TIME, 0) == clock.DEFAULT_EPOCH + 2
    assert guest.call(ELAPSED, 0, 0) == 0
    assert guest.memory.read_ram(Gpa(BLOCK), 8) == struct.pack("<Q", 250_000_000)
    assert guest.ask(TICKFREQ, 0) == 100_000_000


# -- the program ---------------------------------------------------------------------------------


def test_the_command_line() -> None:
    guest = Guest()
    guest.host.command_line = b"guest.elf a b"
    assert guest.call(GET_CMDLINE, BUFFER, 100) == 0
    assert guest.memory.read_ram(Gpa(BUFFER), 14) == b"guest.elf a b\0"
    assert guest.memory.read_ram(Gpa(BLOCK), 8) == struct.pack("<II", BUFFER, 13)
    assert guest.call(GET_CMDLINE, BUFFER, 13) == FAILED and guest.errno == errno.E2BIG


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a", "b"], b"a b"),
        (["a b", ""], b'"a b" ""'),
        (["-x", "--", "é"], "-x -- é".encode()),
        (['say "hi" now'], b"'say \"hi\" now'"),
        (["it's"], b"it's"),
        (["'quoted'"], b"\"'quoted'\""),
        (['"'], b"'\"'"),
    ],
)
def test_arguments_are_quoted_for_newlib(arguments: list[str], line: bytes) -> None:
    assert join_arguments(arguments) == line


def test_heap_information() -> None:
    guest = Guest()
    guest.host.layout = Layout(1, 2, 3, 4)
    assert guest.call(HEAPINFO, BUFFER) == 0
    assert guest.memory.read_ram(Gpa(BUFFER), 16) == struct.pack("<4I", 1, 2, 3, 4)


def test_exits() -> None:
    guest = Guest()
    assert guest.ask(EXIT, 0x20026) == GuestExit(0)
    assert guest.ask(EXIT, 0x20023) == GuestExit(1, "run-time error, unknown")
    assert guest.ask(EXIT, 7) == GuestExit(1, "unknown reason 0x7")
    assert guest.call(EXIT_EXTENDED, 0x20026, 42) == GuestExit(42)
    assert guest.call(EXIT_EXTENDED, 0x20026, 0xFFFFFFFF) == GuestExit(255)


def test_is_error() -> None:
    guest = Guest()
    assert [guest.call(ISERROR, status) for status in (0, 1, FAILED)] == [0, 0, 1]


def test_a_host_command_is_refused() -> None:
    guest = Guest()
    assert guest.named(SYSTEM, b"true") == FAILED and guest.errno == errno.EPERM
    assert "refused" in guest.notices[0]


def test_an_unknown_operation_fails_with_one_notice() -> None:
    guest = Guest()
    for operation in (0x99, 0x99, 0xFFFFFFFF):
        assert guest.ask(operation, 0) == FAILED
    assert [notice.count("0x") for notice in guest.notices] == [1, 1]


def test_a_guest_cannot_fill_the_users_terminal_with_notices() -> None:
    guest = Guest()
    for operation in range(0x1000, 0x2000):
        assert guest.ask(operation, 0) == FAILED
    assert len(guest.notices) == NOTICES_PER_KIND + 1
    assert "no more of them are reported" in guest.notices[-1]
    assert guest.named(SYSTEM, b"true") == FAILED
    assert "refused" in guest.notices[-1], "another kind is still reported"


# -- hostile parameters --------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [OPEN, CLOSE, WRITEC, WRITE0, WRITE, READ, ISTTY, SEEK, FLEN, HEAPINFO, ELAPSED])
@pytest.mark.parametrize("pointer", [RAM - 1, RAM, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])
def test_a_block_outside_ram_is_a_failure(operation: int, pointer: int) -> None:
    guest = Guest()
    guest.memory.write_ram(Gpa(RAM - 1), b"x")
    if operation == WRITEC and pointer == RAM - 1:
        return
    assert guest.ask(operation, pointer) == FAILED
    assert guest.errno == errno.EFAULT


def test_buffers_outside_ram_are_failures(tmp_path: Path) -> None:
    guest = Guest(tmp_path, input_=b"typed")
    (tmp_path / "file").write_bytes(b"text")
    file, stdin = guest.open(b"file", 2), guest.open(b":tt", 0)
    for handle in (file, stdin):
        assert guest.call(READ, handle, RAM - 2, 3) == FAILED
        assert guest.call(READ, handle, 0xFFFFFFFF, 0xFFFFFFFF) == FAILED
    assert guest.call(WRITE, file, BUFFER, 0xFFFFFFFF) == FAILED
    assert guest.call(OPEN, TEXT, 0, 0xFFFFFFFF) == FAILED
    assert guest.read(stdin, 5) == b"typed"  # no input was lost


WORD = st.one_of(
    st.integers(0, 8), st.sampled_from((TEXT, BUFFER, RAM, RAM - 1, 1 << 31, FAILED)), st.integers(0, FAILED)
)


CALLS = st.lists(st.tuples(st.integers(0, 0x32), st.tuples(WORD, WORD, WORD, WORD)), max_size=6)


@settings(max_examples=1000, deadline=None)
@given(CALLS, st.binary(max_size=40))
def test_a_call_at_once_is_the_call_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, tuple[int, int, int, int]]], text: bytes
) -> None:
    guests = []
    for _ in range(2):  # which have no file in common, or one could remove what the other uses
        folder = tmp_path_factory.mktemp("files")
        (folder / "file").write_bytes(b"content")
        guests.append(Guest(folder, b"typed"))
    for guest in guests:
        guest.memory.write_ram(Gpa(TEXT), text)
        assert [guest.open(b":tt", 0), guest.open(b":tt", 4), guest.open(b"file", 0)] == [1, 2, 3]
    for operation, words in calls:
        block = struct.pack("<4I", *words)
        for guest in guests:
            guest.memory.write_ram(Gpa(BLOCK), block)
        expected, host = guests[0].host.call(operation, BLOCK), guests[1].host
        before = guests[1].memory.read_ram(Gpa(0), RAM), host.save(), host.received
        answer: int | GuestExit | None = host.call_at_once(operation, BLOCK)
        if answer is None:
            assert (guests[1].memory.read_ram(Gpa(0), RAM), host.save(), host.received) == before
            answer = host.call(operation, BLOCK)
        assert answer == expected
        assert host.save() == guests[0].host.save()
        assert guests[1].memory.read_ram(Gpa(0), RAM) == guests[0].memory.read_ram(Gpa(0), RAM)
        for guest in guests:
            guest.deliver()
        assert vars(guests[0].console) == vars(guests[1].console)
    for guest in guests:
        guest.host.close()


def test_what_is_answered_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    guest = Guest(tmp_path, input_=b"typed")
    stdin, stdout, file = guest.open(b":tt", 0), guest.open(b":tt", 4), guest.open(b"file", 2)

    def at_once(operation: int, *words: int) -> int | None:
        guest.memory.write_ram(Gpa(BLOCK), struct.pack(f"<{len(words)}I", *words))
        return guest.host.call_at_once(operation, BLOCK)

    assert at_once(WRITE, stdout, BUFFER, 4096) == at_once(READ, file, BUFFER, 4096) == at_once(SEEK, file, 1) == 0
    assert at_once(READ, 9, BUFFER, 1) == FAILED and guest.errno == errno.EBADF
    assert at_once(WRITE, stdout, BUFFER, 4097) is None, "what is long is left to the run loop"
    assert at_once(READ, file, BUFFER, 4097) is None
    assert at_once(READ, stdin, BUFFER, 1) is None, "a prompt is to be shown before input is read"
    assert guest.host.call_at_once(READC, 0) is None and guest.host.call_at_once(EXIT, 0x20026) is None
    assert guest.host.call_at_once(0x99, 0) is None and not guest.notices


@settings(max_examples=2000, deadline=None)
@given(CALLS, st.binary(max_size=40))
def test_no_call_disturbs_the_host(calls: list[tuple[int, tuple[int, int, int, int]]], text: bytes) -> None:
    guest = Guest(input_=b"typed")
    guest.memory.write_ram(Gpa(TEXT), text)
    for operation, words in calls:
        answer = guest.call(operation, *words)
        assert isinstance(answer, GuestExit) or 0 <= answer <= FAILED
