"""What the host and the agent of a Linux guest say to each other (guests/linux/agent): frames, and requests.

A frame is a kind, a stream, the number of a session and a value, whose size comes before it. Numbers are little-endian.
What the guest sends is hostile until it is checked: :class:`FrameReader`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from dbt.host.console import ConsoleError

_HEADER: Final = struct.Struct("<BBHI")
#: Bytes of a value at most.
FRAME_MOST: Final = 32768
#: Bytes of a program's input that are on their way at most, before the agent says that some of them were taken.
INPUT_MOST: Final = 65536
#: Bytes of a request at most, and how many arguments and variables of the environment it has together.
REQUEST_MOST: Final = 2 << 20
STRINGS_MOST: Final = 65536 - 4
#: Bytes of a question about names, and how many are on their way at once at most (guests/linux/agent/names.c).
QUESTION_LEAST: Final = 12
QUESTION_MOST: Final = 512
QUESTIONS: Final = 68
_WORD: Final = struct.Struct("<I")
_FAILURE: Final = struct.Struct("<iII")


class ToGuest(IntEnum):
    """The kinds of frames to the guest."""

    PREPARE = 1
    START = 2
    INPUT = 3
    SIGNAL = 4
    RESIZE = 5
    FINISH = 6
    CREDIT = 7
    SYNC = 8
    NAMES = 9
    ANSWER = 10


class FromGuest(IntEnum):
    """The kinds of frames from the guest."""

    READY = 1
    STARTED = 2
    OUTPUT = 3
    TAKEN = 4
    ENDED = 5
    FAILED = 6
    SYNCED = 7
    FINISHED = 8
    ASKED = 9


class Frame(NamedTuple):
    """A frame from the guest. ``stream`` is 1 or 2 for output: standard output and standard error. For a question about
    names it is 1 if the answer may be longer than a datagram, and ``session`` is the question's number.
    """

    kind: FromGuest
    stream: int
    session: int
    value: bytes

    @property
    def size(self) -> int:
        """How many bytes of the stream it is."""
        return _HEADER.size + len(self.value)

    @property
    def number(self) -> int:
        """The value of a frame that carries a number: bytes that were taken, or a status as of wait(2)."""
        value: int = _WORD.unpack(self.value)[0]
        return value


class Failure(NamedTuple):
    """Why a program was not started: an error number of Linux, and the item of the request, by tag and place."""

    error: int
    tag: str
    place: int

    @classmethod
    def of(cls, value: bytes) -> Failure:
        """Return what the value of a frame FAILED says."""
        error, tag, place = _FAILURE.unpack(value)
        return cls(error, chr(tag & 0x7F), place)


class ProtocolError(ConsoleError):
    """Raised if the guest sends what the agent does not send. It is as good as ended then."""


_SIZES: Final = {
    FromGuest.READY: (0, 0),
    FromGuest.STARTED: (4, 4),
    FromGuest.OUTPUT: (1, FRAME_MOST),
    FromGuest.TAKEN: (4, 4),
    FromGuest.ENDED: (4, 4),
    FromGuest.FAILED: (_FAILURE.size, _FAILURE.size),
    FromGuest.SYNCED: (1, FRAME_MOST),
    FromGuest.FINISHED: (0, 0),
    FromGuest.ASKED: (QUESTION_LEAST, QUESTION_MOST),
}


class FrameReader:
    """Makes frames of the bytes that come from the guest, in whatever pieces they come."""

    def __init__(self, begun: bytes = b"") -> None:
        """``begun`` is the beginning of a frame that has come before."""
        self._bytes = bytearray(begun)

    @property
    def begun(self) -> bytes:
        """The beginning of a frame that has come, and is not complete."""
        return bytes(self._bytes)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with ``data``. Raise ProtocolError for what is none."""
        self._bytes += data
        at = 0
        try:
            while len(self._bytes) - at >= _HEADER.size:
                kind, stream, session, size = _HEADER.unpack_from(self._bytes, at)
                least, most = _SIZES.get(kind, (1, 0))
                if not least <= size <= most:
                    raise ProtocolError(f"the guest sent a frame of kind {kind} with {size} bytes")
                if kind == FromGuest.OUTPUT and stream not in (1, 2):
                    raise ProtocolError(f"the guest sent output for stream {stream}")
                begin = at + _HEADER.size
                if len(self._bytes) - begin < size:
                    return
                at = begin + size
                yield Frame(FromGuest(kind), stream, session, bytes(self._bytes[begin:at]))
        finally:
            del self._bytes[:at]


def frame(kind: ToGuest, session: int = 0, value: bytes = b"", stream: int = 0) -> bytes:
    """Return a frame to the guest. ``stream`` is 1 for a signal to one process and not to its group, and for the end of
    the guest although there are sessions.
    """
    return _HEADER.pack(kind, stream, session, len(value)) + value


def window(rows: int, columns: int) -> bytes:
    """Return the size of a terminal, as requests and frames have it."""
    return struct.pack("<HH", *(min(max(size, 0), 0xFFFF) for size in (rows, columns)))


class RequestError(ValueError):
    """Raised if a program has more arguments and variables of the environment than a request can carry."""


class Request:
    """What a session's process is to do before it executes its program: the methods add to that, in this order."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._strings = 0
        #: What each item is about, for messages.
        self.items: list[str] = []

    def _add(self, tag: str, about: str, *values: bytes) -> None:
        value = b"".join(values)
        self._data += tag.encode() + _WORD.pack(len(value)) + value
        self.items.append(about)
        if len(self._data) > REQUEST_MOST or self._strings > STRINGS_MOST:
            raise RequestError("the program has too many arguments, or too large an environment")

    def program(self, path: str, arguments: list[str], environment: dict[str, str]) -> None:
        """Execute ``path``. ``arguments`` begin with the program's name."""
        self._strings += len(arguments) + len(environment)
        for argument in arguments:
            self._add("a", "an argument", encoded_text(argument))
        for name, value in environment.items():
            self._add("e", "a variable of the environment", encoded_text(f"{name}={value}"))
        self._add("p", path, encoded_text(path))

    def mount(self, kind: str, source: str, target: str, flags: int = 0, options: str = "") -> None:
        """Mount a file system of ``kind``: see mount(2)."""
        texts = map(encoded_text, (source, target, kind, options))
        self._add("m", f"mounting {source} at {target}", _WORD.pack(flags), *texts)

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it."""
        self._add("k", path, encoded_text(path))

    def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file."""
        self._add("f", path, _WORD.pack(mode), encoded_text(path), content)

    def link(self, target: str, path: str) -> None:
        """Make a symbolic link at ``path``."""
        self._add("l", path, encoded_text(target), encoded_text(path))

    def change_root(self, path: str) -> None:
        """Take another root directory. It is the working directory too."""
        self._add("r", path, encoded_text(path))

    def change_directory(self, path: str) -> None:
        """Take another working directory."""
        self._add("d", path, encoded_text(path))

    def become(self, user: int, group: int, groups: list[int]) -> None:
        """Become another user."""
        self._add("g", "supplementary groups", *map(_WORD.pack, groups))
        self._add("o", f"user {user}", _WORD.pack(user), _WORD.pack(group))

    def set_mask(self, mask: int) -> None:
        """Set the file mode creation mask."""
        self._add("u", "umask", _WORD.pack(mask))

    def set_time(self, seconds: int) -> None:
        """Set the clock, in seconds since 1970."""
        self._add("c", "the clock", _WORD.pack(seconds & 0xFFFFFFFF), _WORD.pack(0))

    def add_entropy(self, data: bytes) -> None:
        """Let the kernel's random numbers start again from ``data``, at most 512 bytes."""
        self._add("s", "random numbers", data)

    def set_host_name(self, name: str) -> None:
        """Set the host's name."""
        self._add("h", f"the host name {name}", encoded_text(name))

    def use_terminal(self, rows: int, columns: int) -> None:
        """Let the program's streams be a terminal of this size."""
        self._add("t", "a terminal", window(rows, columns))

    def frames(self, session: int) -> bytes:
        """Return the frames that bring the request to the guest and start it."""
        return b"".join(self.pieces(session))

    def pieces(self, session: int) -> list[bytes]:
        """Return the same frames one by one."""
        data, parts = bytes(self._data), []
        for at in range(0, len(data), FRAME_MOST):
            parts.append(frame(ToGuest.PREPARE, session, data[at : at + FRAME_MOST]))
        return [*parts, frame(ToGuest.START, session)]


def encoded_text(text: str) -> bytes:
    """Return a text as the agent takes it. Precondition: it has no zero character."""
    return text.encode("utf-8", "surrogateescape") + b"\0"
