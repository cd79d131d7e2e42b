"""The files that a command is to write: none of them may be a file that it reads, nor one that it writes otherwise."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable

from dbt.cli.status import CommandError, Status

#: The errors of a host that cannot take what is written, though the name of the file is good.
_HOST_FAILURES = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))

#: A file that a command reads or writes: what it is called in messages, and its path, if it is given.
NamedFile = tuple[str, str | None]


def check_outputs(outputs: Iterable[NamedFile], inputs: Iterable[NamedFile]) -> None:
    """Raise CommandError if an output would overwrite an input or another output, or if its path is ``-``.

    An output is named by its option, an input by what it is, for example "the program". Devices and pipes may be given
    more than once.
    """
    taken: dict[object, str] = {}
    for what, path in inputs:
        if path is not None and (identity := _identity(path)) is not None:
            taken.setdefault(identity, what)
    for option, path in outputs:
        if path is None:
            continue
        if path == "-":
            message = f"{option} -: this takes the name of a file. Write ./- for a file of that name."
            raise CommandError(message, Status.USAGE)
        if (identity := _identity(path)) is None:
            continue
        if (other := taken.get(identity)) is not None:
            raise CommandError(f"{option} {path}: this is {other}. Give another name.", Status.USAGE)
        taken[identity] = f"the file of {option}"


def _identity(path: str) -> object:
    """Return what is equal for two paths of one file, or None for a device, a pipe or a directory."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # there is none yet, or its opening says what is wrong
        return os.path.realpath(path) if "\0" not in path else None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def cannot_write(option: str, path: str, error: Exception) -> CommandError:
    """Return what to raise if the file of an option cannot be opened or written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    failed = isinstance(error, OSError) and error.errno in _HOST_FAILURES
    status = Status.FAILURE if failed else Status.USAGE
    return CommandError(f"{option} {path}: it cannot be written: {reason}.", status)


def open_output(option: str, path: str) -> io.BufferedWriter:
    """Open the file of an option to be written. CommandError names the file, when it is written too."""
    try:
        return io.BufferedWriter(_OutputFile(option, path), 1 << 16)
    except (OSError, ValueError) as error:
        raise cannot_write(option, path, error) from None


class _OutputFile(io.FileIO):
    """A file whose errors of writing name its option. Only such an error tells it from an error of another file."""

    def __init__(self, option: str, path: str) -> None:
        super().__init__(path, "wb")
        self._option, self._path = option, path

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise cannot_write(self._option, self._path, error) from None
