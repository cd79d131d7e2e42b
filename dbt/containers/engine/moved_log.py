"""The log of a container that goes to another host: an archive of its files."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Final

from dbt.containers.engine.body_source import BodySource
from dbt.containers.engine.errors import BadParameter
from dbt.containers.images.tar_writer import TarWriter

_PIECE: Final = 1 << 20
_NEW: Final = "log-that-comes"


def is_log(name: str, id: str) -> bool:
    """Return True if a file of this name in the directory of a container is of its log."""
    return re.fullmatch(rf"{id}-json\.log(\.[0-9]{{1,9}})?", name) is not None


def packed(folder: str, id: str) -> Iterator[bytes]:
    """Yield the archive of the log in the directory of a container that has ended here."""
    written = TarWriter()
    for name in sorted(os.listdir(folder)):
        if is_log(name, id):
            with open(os.path.join(folder, name), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                yield from written.file(name, size, iter(partial(file.read, _PIECE), b""))
    yield written.end()


def unpack(source: BodySource, folder: str, id: str) -> str:
    """Write the log of an archive to a new directory in that of a container, and return it. Raise BadParameter for an
    archive of anything else, and OSError if there is no room.
    """
    new = os.path.join(folder, _NEW)
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new, 0o700)
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() and is_log(member.name, id) else None
                if content is None:
                    raise BadParameter("the archive of the container's log has something else in it")
                with open(os.path.join(new, member.name), "xb", opener=_private) as file:
                    while piece := content.read(_PIECE):
                        file.write(piece)
    except BaseException as error:
        shutil.rmtree(new)
        if isinstance(error, tarfile.TarError | FileExistsError | EOFError):
            raise BadParameter(f"the archive of the container's log is none: {error}") from None
        raise
    return new


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
