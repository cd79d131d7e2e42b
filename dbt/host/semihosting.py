"""ARM semihosting 3.0 (ARM software, "Semihosting for AArch32 and AArch64"): the operations behind ``SVC 0x123456``.

An operation has a number and a parameter, and returns the value for R0, or the guest's request to exit. A guest can
open files only in the jail, and the clock is virtual (:mod:`dbt.board.clock`), so a run is a function of its inputs.
Pointers are virtual addresses, with the permissions of the mode that made the call. A pointer that does not lead to RAM
makes the operation fail with EFAULT. Nothing that a guest passes raises an error in the host.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gva
from dbt.board import clock
from dbt.devices.state import State, StateError
from dbt.host.guest_notices import GuestNotices
from dbt.host.journal import HostJournal
from dbt.host.output_queue import OutputQueue
from dbt.host.streams import ConsoleStream, FileStream, FixedStream, HostFile, InputPending, Opened, Stream
from dbt.memory.virtual import BadAddress, VirtualMemory

if TYPE_CHECKING:
    from dbt.devices.fields import Fields
    from dbt.host.jail import FileJail

#: The comment field of the SVC instruction that means semihosting in A32.
SEMIHOSTING_SVC = 0x123456
APPLICATION_EXIT = 0x20026
FAILED = 0xFFFFFFFF

MAX_HANDLES = 64
_MAX_STRING = 1 << 16
#: What SYS_TICKFREQ answers at most, because it has 32 bits.
_HIGHEST_FREQUENCY = 1_000_000_000
#: The number of bytes up to which a piece of a file or of output takes no time worth mentioning.
_SHORT = 1 << 12
#: Blocks of so many words.
_WORDS = [struct.Struct(f"<{count}I") for count in range(5)]
#: ":semihosting-features": the magic number, and that SYS_EXIT_EXTENDED and ":tt" for stderr exist.
_FEATURES = b"SHFB\x03"
#: SYS_OPEN's modes 0 to 11 in pairs (text and binary are one): r, r+, w, w+, a, a+.
_OPEN_FLAGS = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_WRONLY | os.O_CREAT,
    os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    os.O_RDWR | os.O_CREAT | os.O_APPEND,
)
_TRUNCATING = (2, 3)
_READABLE_MODES = 2

_EXIT_REASONS = {
    0x20000: "branch through zero",
    0x20001: "undefined instruction",
    0x20002: "software interrupt",
    0x20003: "prefetch abort",
    0x20004: "data abort",
    0x20005: "address exception",
    0x20006: "IRQ",
    0x20007: "FIQ",
    0x20020: "breakpoint",
    0x20021: "watchpoint",
    0x20022: "step complete",
    0x20023: "run-time error, unknown",
    0x20024: "internal error",
    0x20025: "user interruption",
    0x20027: "stack overflow",
    0x20028: "division by zero",
    0x20029: "operating-system specific",
}


class GuestExit(NamedTuple):
    """The guest's request to exit. ``code`` is 0 to 255. ``reason`` says why, and is empty after a normal exit."""

    code: int
    reason: str = ""


class Layout(NamedTuple):
    """The answer to SYS_HEAPINFO: where a C library may put its heap and its stack. All are virtual addresses."""

    heap_base: int
    heap_limit: int
    stack_base: int
    stack_limit: int


NO_LAYOUT = Layout(0, 0, 0, 0)


class Semihosting:
    """The semihosting of one machine.

    ``receive`` gives console input (:meth:`dbt.vm.input.InputSource.read`), and ``output`` takes console output.
    ``icount`` returns the number of instructions retired so far. Without a ``jail`` there are no files. ``notice`` is
    given one line for the user at a time. ``epoch`` is the time of day at the start, in seconds since 1970, and
    ``ticks_per_second`` is how many instructions take a second of the guest's time. ``journal`` is asked for each
    operation on a file.
    """

    def __init__(
        self,
        memory: VirtualMemory,
        output: OutputQueue,
        receive: Callable[[int], bytes | None],
        icount: Callable[[], int],
        jail: FileJail | None,
        notice: Callable[[str], None],
        epoch: int = clock.DEFAULT_EPOCH,
        ticks_per_second: int = clock.ticks_per_second(clock.DEFAULT_INSN_NS),
        journal: HostJournal | None = None,
    ) -> None:
        self.memory, self.output, self.receive = memory, output, receive
        self.icount, self.jail, self.epoch = icount, jail, epoch
        self.ticks_per_second = ticks_per_second
        self.journal = journal if journal is not None else HostJournal()
        self.command_line, self.layout = b"", NO_LAYOUT
        self.errno = 0
        #: How many bytes of the console's input the guest has read by semihosting.
        self.received = 0
        self._streams: dict[int, Stream] = {}
        self._refusals = GuestNotices(notice, "refused requests of the guest")
        self._unknown_operations = GuestNotices(notice, "unknown semihosting operations that the guest used")

    def describe_program(self, command_line: bytes, layout: Layout) -> None:
        """Set the answers to SYS_GET_CMDLINE and SYS_HEAPINFO."""
        self.command_line, self.layout = command_line, layout

    def call(self, operation: int, parameter: int) -> int | GuestExit:
        """Execute ``operation``, the value of R0, with ``parameter``, that of R1. Return the new R0, or the request to
        exit.

        Raises InputPending if the operation waits for input. Nothing has changed then, and the call must be repeated.
        """
        method = _OPERATIONS.get(operation)
        try:
            if method is None:
                line = f"the guest used semihosting operation {operation:#x}, which does not exist here"
                self._unknown_operations.tell(operation, line)
                raise OSError(errno.ENOSYS, "no such operation")
            return method(self, Gva(parameter))  # to some of them it is a number
        except (BadAddress, OSError) as error:
            return self._fail(error)

    def call_at_once(self, operation: int, parameter: int) -> int | None:
        """Do as :meth:`call`, if the operation takes little time, reads no console input and does not exit.

        Return None otherwise. Nothing has changed then.
        """
        method = _AT_ONCE.get(operation)
        if method is None:
            return None
        try:
            return method(self, Gva(parameter))
        except (BadAddress, OSError) as error:
            return self._fail(error)

    def _fail(self, error: BadAddress | OSError) -> int:
        self.errno = errno.EFAULT if isinstance(error, BadAddress) else error.errno or errno.EIO
        return FAILED

    def close(self) -> None:
        """Close every handle, and the directory of files."""
        self.reset()
        if self.jail is not None:
            self.jail.close()

    def reset(self) -> None:
        """Close every handle."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self.errno = self.received = 0

    def save(self) -> tuple[int, list[tuple[int, int]]]:
        """Return what the guest can observe: the last error number, and each open handle with its position."""
        return self.errno, [(handle, stream.position) for handle, stream in sorted(self._streams.items())]

    def save_handles(self) -> dict[int, State]:
        """Return what :meth:`restore_handles` needs of each open handle."""
        return {
            handle: {
                "name": stream.opened.name,
                "mode": stream.opened.mode,
                "position": stream.position,
                "length": stream.length(),
                "version": stream.version(),
            }
            for handle, stream in sorted(self._streams.items())
        }

    def restore_handles(self, handles: Iterable[tuple[int, Fields]]) -> None:
        """Open the handles that :meth:`save_handles` returned, instead of those that are open.

        Raise StateError if the values make no sense, or if a file cannot be opened or has changed.
        """
        self.reset()
        for handle, fields in handles:
            if not 1 <= handle <= MAX_HANDLES:
                raise StateError(f"there is no semihosting handle {handle}")
            name, mode = fields.data("name", _MAX_STRING), fields.number("mode", 2 * len(_OPEN_FLAGS))
            position, text = fields.number("position"), name.decode("utf-8", "backslashreplace")
            try:
                stream = self._streams[handle] = self._open_stream(name, mode, again=True)
                same = stream.length() == fields.number("length") and stream.version() == fields.number(
                    "version", 1 << 63
                )
                if not stream.tty and stream.position != position:
                    stream.seek(position)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise StateError(
                    f"the guest has the file {text!r} open, and it cannot be opened: {reason}. "
                    "Allow the directory that it had (--files DIR)"
                ) from None
            if not same:
                raise StateError(
                    f"the guest has the file {text!r} open, and the file has changed since. Put back the one it was"
                )

    def lost_file(self) -> bytes | None:
        """Return the name of an open file that the host has closed since, because the guest closed it later on; or
        None. Such a file can only be used to repeat what was done with it.
        """
        streams = (stream for stream in self._streams.values() if isinstance(stream, FileStream))
        return next((stream.opened.name for stream in streams if stream.file.is_closed), None)

    def keep(self) -> KeptHandles:
        """Return what gives the guest its present handles again."""
        return KeptHandles(self, self._streams)

    def _refuse(self, line: str) -> None:
        self._refusals.tell(line, line)

    # -- the guest's memory --------------------------------------------------------------------

    def _bytes(self, gva: Gva, size: int) -> bytes:
        return self.memory.read(gva, size)

    def _store(self, gva: Gva, data: bytes) -> None:
        self.memory.write(gva, data)

    def _words(self, gva: Gva, count: int) -> tuple[int, ...]:
        return _WORDS[count].unpack(self._bytes(gva, 4 * count))

    def _name(self, gva: Gva, length: int) -> bytes:
        if length > _MAX_STRING:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return self._bytes(gva, length)

    # -- handles -------------------------------------------------------------------------------

    def _stream(self, handle: int) -> Stream:
        stream = self._streams.get(handle)
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return stream

    def _files(self) -> FileJail:
        if self.jail is None:
            self._refuse("the guest asked for a host file and was refused: allow a directory (--files DIR)")
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return self.jail

    def _open_stream(self, name: bytes, mode: int, again: bool = False) -> Stream:
        """Open a stream. ``again``: a file is there, and keeps what it holds."""
        opened = Opened(name, mode)
        if mode >= 2 * len(_OPEN_FLAGS):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if name == b":tt":
            return ConsoleStream(opened, self._receive, (None, self.output.write, self.output.write_error)[mode // 4])
        if name == b":semihosting-features":
            if mode >= _READABLE_MODES:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return FixedStream(opened, _FEATURES)
        flags, truncates = _OPEN_FLAGS[mode // 2], mode // 2 in _TRUNCATING
        if again:
            flags, truncates = flags & ~os.O_CREAT, False
            if self.jail is None:  # whoever restores the machine is told that, and not that the guest asked
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        is_new: list[HostFile] = []

        def open_it() -> HostFile:
            is_new.append(HostFile(self._files().open(name, flags, truncates), bool(flags & os.O_APPEND)))
            return is_new[0]

        file = self.journal.ask("an opening", open_it)
        if not is_new:  # an opening that is repeated leads to the file that is there
            file.hold()
        return FileStream(opened, file, self.journal)

    def _open(self, block: Gva) -> int:
        name, mode, length = self._words(block, 3)
        free = next((handle for handle in range(1, MAX_HANDLES + 1) if handle not in self._streams), None)
        if free is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._streams[free] = self._open_stream(self._name(Gva(name), length), mode)
        return free

    def _close(self, block: Gva) -> int:
        (handle,) = self._words(block, 1)
        self._stream(handle)
        self._streams.pop(handle).close()
        return 0

    def _write(self, block: Gva) -> int:
        """Write, and return the number of bytes that were not written."""
        handle, buffer, length = self._words(block, 3)
        return length - self._stream(handle).write(self._bytes(Gva(buffer), length))

    def _write_at_once(self, block: Gva) -> int | None:
        handle, buffer, length = self._words(block, 3)
        if length > _SHORT:
            return None
        return length - self._stream(handle).write(self._bytes(Gva(buffer), length))

    def _read(self, block: Gva) -> int:
        """Read, and return the number of bytes that were not read, which at the end of the file is all of them."""
        handle, buffer, length = self._words(block, 3)
        return self._read_stream(self._stream(handle), Gva(buffer), length)

    def _read_at_once(self, block: Gva) -> int | None:
        handle, buffer, length = self._words(block, 3)
        stream = self._stream(handle)
        if length > _SHORT or stream.tty:
            return None
        return self._read_stream(stream, Gva(buffer), length)

    def _read_stream(self, stream: Stream, buffer: Gva, length: int) -> int:
        self.memory.check(buffer, length)
        data = stream.read(length) if length else b""
        self._store(buffer, data)
        return length - len(data)

    def _is_tty(self, block: Gva) -> int:
        (handle,) = self._words(block, 1)
        return int(self._stream(handle).tty)

    def _seek(self, block: Gva) -> int:
        handle, position = self._words(block, 2)
        self._stream(handle).seek(position)
        return 0

    def _file_length(self, block: Gva) -> int:
        (handle,) = self._words(block, 1)
        length = self._stream(handle).length()
        if length >> 31:
            raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
        return length

    # -- the console ---------------------------------------------------------------------------

    def _receive(self, size: int) -> bytes | None:
        data = self.receive(size)
        self.received += len(data or b"")
        return data

    def _write_character(self, gva: Gva) -> int:
        self.output.write(self._bytes(gva, 1))
        return 0

    def _write_string(self, gva: Gva) -> int:
        """Write a string to the console. The NUL that ends it must be in RAM."""
        self.output.write(self.memory.read_string(gva))
        return 0

    def _read_character(self, _: int) -> int:
        data = self._receive(1)
        if data is None:
            raise InputPending
        return data[0] if data else FAILED

    # -- names ---------------------------------------------------------------------------------

    def _temporary_name(self, block: Gva) -> int:
        buffer, identifier, length = self._words(block, 3)
        name = b"dbt%03d.tmp\0" % (identifier & 0xFF)
        if length < len(name):
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        self._store(Gva(buffer), name)
        return 0

    def _remove(self, block: Gva) -> int:
        name, length = self._words(block, 2)
        text = self._name(Gva(name), length)
        self.journal.ask("a removal", lambda: self._files().remove(text))
        return 0

    def _rename(self, block: Gva) -> int:
        old, old_length, new, new_length = self._words(block, 4)
        names = self._name(Gva(old), old_length), self._name(Gva(new), new_length)
        self.journal.ask("a renaming", lambda: self._files().rename(*names))
        return 0

    def _system(self, _: int) -> int:
        self._refuse("the guest asked to run a command on the host and was refused")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    # -- time ----------------------------------------------------------------------------------

    def _clock(self, _: int) -> int:
        return self.icount() * 100 // self.ticks_per_second & 0x7FFFFFFF

    def _time(self, _: int) -> int:
        return self.epoch + self.icount() // self.ticks_per_second & 0xFFFFFFFF

    def _elapsed(self, block: Gva) -> int:
        elapsed = self.icount() * self._tick_frequency(0) // self.ticks_per_second
        self._store(block, struct.pack("<Q", elapsed))
        return 0

    def _tick_frequency(self, _: int) -> int:
        return min(self.ticks_per_second, _HIGHEST_FREQUENCY)

    # -- the program ---------------------------------------------------------------------------

    def _is_error(self, block: Gva) -> int:
        (status,) = self._words(block, 1)
        return status >> 31

    def _errno(self, _: int) -> int:
        return self.errno

    def _get_command_line(self, block: Gva) -> int:
        buffer, length = self._words(block, 2)
        line = self.command_line + b"\0"
        if length < len(line):
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self._store(Gva(buffer), line)
        self._store(block, struct.pack("<II", buffer, len(line) - 1))
        return 0

    def _heap_info(self, block: Gva) -> int:
        (answer,) = self._words(block, 1)
        places = self.layout
        self._store(
            Gva(answer),
            struct.pack("<4I", places.heap_base, places.heap_limit, places.stack_base, places.stack_limit),
        )
        return 0

    def _exit(self, reason: int) -> GuestExit:
        return _exit_for(reason, 0)

    def _exit_extended(self, block: Gva) -> GuestExit:
        reason, code = self._words(block, 2)
        return _exit_for(reason, code)


class KeptHandles:
    """The handles that a guest has when this is made, with their positions, and its last error number.

    The files stay open until :meth:`close`, even if the guest closes them. What it writes to them is not undone.
    """

    def __init__(self, semihosting: Semihosting, streams: dict[int, Stream]) -> None:
        self._semihosting, self._streams = semihosting, streams
        self._errno, self._received = semihosting.errno, semihosting.received
        self.journal_position = semihosting.journal.position
        self._kept: dict[int, tuple[Stream, int]] = {}
        for handle, stream in streams.items():
            self._kept[handle] = stream, stream.position
            stream.hold()

    def put_back(self) -> None:
        """Give the guest these handles again, and no others. Raise OSError if a file has no such position any more."""
        streams = self._streams
        for stream, _ in self._kept.values():
            stream.hold()
        for stream in streams.values():
            stream.close()
        streams.clear()
        for handle, (stream, position) in self._kept.items():
            streams[handle] = stream
            if not stream.tty:
                stream.seek(position)
        self._semihosting.errno, self._semihosting.received = self._errno, self._received
        self._semihosting.journal.go_back(self.journal_position)

    def close(self) -> None:
        """Close the files that only this holds open. A second call does nothing."""
        kept, self._kept = self._kept, {}
        for stream, _ in kept.values():
            stream.close()

    def __del__(self) -> None:
        self.close()


def _exit_for(reason: int, code: int) -> GuestExit:
    if reason == APPLICATION_EXIT:
        return GuestExit(code & 0xFF)
    return GuestExit(1, _EXIT_REASONS.get(reason, f"unknown reason {reason:#x}"))


_OPERATIONS: dict[int, Callable[[Semihosting, Gva], int | GuestExit]] = {
    0x01: Semihosting._open,
    0x02: Semihosting._close,
    0x03: Semihosting._write_character,
    0x04: Semihosting._write_string,
    0x05: Semihosting._write,
    0x06: Semihosting._read,
    0x07: Semihosting._read_character,
    0x08: Semihosting._is_error,
    0x09: Semihosting._is_tty,
    0x0A: Semihosting._seek,
    0x0C: Semihosting._file_length,
    0x0D: Semihosting._temporary_name,
    0x0E: Semihosting._remove,
    0x0F: Semihosting._rename,
    0x10: Semihosting._clock,
    0x11: Semihosting._time,
    0x12: Semihosting._system,
    0x13: Semihosting._errno,
    0x15: Semihosting._get_command_line,
    0x16: Semihosting._heap_info,
    0x18: Semihosting._exit,
    0x20: Semihosting._exit_extended,
    0x30: Semihosting._elapsed,
    0x31: Semihosting._tick_frequency,
}

#: What :meth:`Semihosting.call_at_once` does. These return None for a request that takes long or reads the console.
_AT_ONCE: dict[int, Callable[[Semihosting, Gva], int | None]] = {
    0x03: Semihosting._write_character,
    0x05: Semihosting._write_at_once,
    0x06: Semihosting._read_at_once,
    0x08: Semihosting._is_error,
    0x09: Semihosting._is_tty,
    0x0A: Semihosting._seek,
    0x0C: Semihosting._file_length,
    0x10: Semihosting._clock,
    0x11: Semihosting._time,
    0x13: Semihosting._errno,
    0x30: Semihosting._elapsed,
    0x31: Semihosting._tick_frequency,
}


def join_arguments(arguments: Sequence[str]) -> bytes:
    """Return the command line that newlib's start-up code splits into these arguments.

    That code knows quotes around a word but no escapes. Therefore a word with blanks and both kinds of quotes cannot be
    expressed; it is passed without its double quotes.
    """
    return b" ".join(_quote(os.fsencode(argument)) for argument in arguments)


def _quote(word: bytes) -> bytes:
    if word and word[:1] not in (b'"', b"'") and not any(blank in word for blank in (b" ", b"\t", b"\n")):
        return word
    if b'"' not in word:
        return b'"' + word + b'"'
    if b"'" not in word:
        return b"'" + word + b"'"
    return b'"' + word.replace(b'"', b"") + b'"'
