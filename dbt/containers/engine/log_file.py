"""What containers have written, in files: a line of JSON for each line, as docker's json-file has them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import BinaryIO, Final, NamedTuple

import msgspec

from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.timestamps import ns_of, text_of

#: A line that is longer is several, of which only the last ends in a newline: as docker's.
_LONGEST_LINE: Final = 16 << 10
_SIZE: Final = re.compile(r"(\d{1,12})\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_NAMES: Final = {1: "stdout", 2: "stderr"}
_NUMBERS: Final = {"stdout": 1, "stderr": 2}


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str


class Line(NamedTuple):
    """A line of a log: the stream, 1 or 2, the time in nanoseconds since 1970, and the text with its newline."""

    stream: int
    time: int
    data: bytes


class LogOptions(NamedTuple):
    """``most_bytes``: the size after which a file is put aside, 0 for no limit; ``files``: how many are kept."""

    most_bytes: int = 0
    files: int = 1

    @classmethod
    def read(cls, options: dict[str, str]) -> LogOptions:
        """Return what docker's options of a log say. Raise BadParameter."""
        for name in options:
            if name not in ("max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag", "compress"):
                raise BadParameter(f"unknown log opt '{name}' for json-file log driver")
        size = _SIZE.fullmatch(options.get("max-size", "0").strip())
        files = options.get("max-file", "1")
        if size is None:
            raise BadParameter(f"invalid size: '{options['max-size']}'")
        if not files.isdigit() or int(files) < 1:
            raise BadParameter("max-file cannot be less than 1")
        return cls(int(size[1]) << _UNITS[size[2].lower()], int(files))


class Log:
    """The log of a container, in the file ``path`` and older ones beside it. It belongs to one event loop."""

    def __init__(self, path: str, options: LogOptions) -> None:
        self.path = path
        self._options = options
        self._file: int | None = None
        self._size = 0
        self._begun: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._changed = asyncio.Event()
        self._is_closed = True

    # -- writing -------------------------------------------------------------------------------

    def open(self) -> None:
        """Be written to by a program that begins."""
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._is_closed = False

    def adopt(self, folder: str) -> None:
        """Have the log that is in a directory, which goes, before what this one has."""
        is_open = self._file is not None
        if self._file is not None:
            os.close(self._file)
        with open(os.path.join(folder, os.path.basename(self.path)), "ab") as older:
            if os.path.exists(self.path):
                with open(self.path, "rb") as own:
                    shutil.copyfileobj(own, older)
        for name in os.listdir(folder):
            os.replace(os.path.join(folder, name), os.path.join(os.path.dirname(self.path), name))
        os.rmdir(folder)
        if is_open:
            self.open()

    def write(self, stream: int, data: bytes) -> None:
        """Keep what a program has written. A line is kept when it is complete."""
        begun, lines = self._begun[stream], []
        moment = text_of(time.time_ns())
        begun += data
        start = 0
        while len(begun) - start > 0:
            end = begun.find(b"\n", start, start + _LONGEST_LINE) + 1
            if not end and len(begun) - start < _LONGEST_LINE:
                break
            end = end or start + _LONGEST_LINE
            lines.append(_encode(stream, bytes(begun[start:end]), moment))
            start = end
        del begun[:start]
        if lines:
            self._append(b"".join(lines))

    @property
    def has_begun(self) -> bool:
        """True if there is a line that has no end yet, and is not in the file."""
        return any(self._begun.values())

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        if self._options.most_bytes and self._size and self._size + len(data) > self._options.most_bytes:
            self._put_aside()
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)
        self._changed.set()

    def _put_aside(self) -> None:
        assert self._file is not None
        for number in range(self._options.files - 1, 0, -1):
            source = self.path if number == 1 else f"{self.path}.{number - 1}"
            if os.path.exists(source):
                os.replace(source, f"{self.path}.{number}")
        if self._options.files == 1:
            os.unlink(self.path)
        os.close(self._file)
        self.open()

    def close(self) -> None:
        """Keep what is left of lines that have no end: the program has ended."""
        if self._file is None:
            return
        for stream, begun in self._begun.items():
            if begun:
                self._append(_encode(stream, bytes(begun), text_of(time.time_ns())))
                begun.clear()
        os.close(self._file)
        self._file, self._is_closed = None, True
        self._changed.set()

    # -- reading -------------------------------------------------------------------------------

    def _older(self) -> list[str]:
        return [f"{self.path}.{number}" for number in range(self._options.files - 1, 0, -1)]

    async def read(
        self, tail: int | None, since: int | None, until: int | None, follow: bool
    ) -> AsyncGenerator[Line, None]:
        """Yield lines: the last ``tail`` ones, of some time, in nanoseconds since 1970. With ``follow``, go on until
        the program that writes ends, or the time is over.
        """
        file = self._opened()
        try:
            chosen = (line for line in self._from_files(file) if since is None or line.time >= since)
            for number, line in enumerate(chosen if tail is None else deque(chosen, tail)):
                if until is not None and line.time > until:
                    return
                yield line
                if not number % 64:
                    await asyncio.sleep(0)
            while follow:
                self._changed.clear()
                is_over = self._is_closed
                for line in _lines_of(file) if file else ():
                    if until is not None and line.time > until:
                        return
                    if since is None or line.time >= since:
                        yield line
                file, is_new = self._renewed(file)
                if is_new:
                    continue
                if is_over or (until is not None and time.time_ns() > until):
                    return
                await self._wait(until)
        finally:
            if file:
                file.close()

    def _from_files(self, file: BinaryIO | None) -> Iterator[Line]:
        for path in self._older():
            try:
                with open(path, "rb") as older:
                    yield from _lines_of(older)
            except FileNotFoundError:
                continue
        if file:
            yield from _lines_of(file)

    def _opened(self) -> BinaryIO | None:
        try:
            return open(self.path, "rb")
        except FileNotFoundError:
            return None

    def _renewed(self, file: BinaryIO | None) -> tuple[BinaryIO | None, bool]:
        """Return the file that is written to now, and whether that is another one than before."""
        try:
            now = os.stat(self.path).st_ino
        except FileNotFoundError:
            return file, False
        if file is not None and os.fstat(file.fileno()).st_ino == now:
            return file, False
        if file is not None:
            file.close()
        return self._opened(), True

    async def _wait(self, until: int | None) -> None:
        rest = None if until is None else max((until - time.time_ns()) / 1e9, 0)
        try:
            async with asyncio.timeout(rest):
                await self._changed.wait()
        except TimeoutError:
            pass  # the time is over: whoever waits looks at the clock


def _encode(stream: int, data: bytes, moment: str) -> bytes:
    text = data.decode("utf-8", "replace")
    return msgspec.json.encode(_Line(text, _NAMES[stream], moment)) + b"\n"


def _lines_of(file: BinaryIO) -> Iterator[Line]:
    """Yield the complete lines from the place of a file on, and leave it behind them. What is no line is left out."""
    while text := file.readline():
        if not text.endswith(b"\n"):
            file.seek(-len(text), os.SEEK_CUR)
            return
        try:
            one = msgspec.json.decode(text, type=_Line)
            yield Line(_NUMBERS[one.stream], ns_of(one.time), one.log.encode())
        except (msgspec.DecodeError, ValueError, KeyError):
            continue  # the host has crashed while it was written
