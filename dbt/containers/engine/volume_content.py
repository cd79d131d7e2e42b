"""What a new volume has: the files that the image has where it is mounted, as docker does it.

Another container may have the volume too, and change it meanwhile. So each step is made in a directory that is open
already, and no link is followed. Owners and special files cannot be had, because the engine may be no root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from dbt.containers.engine.errors import EngineError
from dbt.containers.images.errors import PathError
from dbt.containers.images.image import Layer
from dbt.containers.images.view import FilesView
from dbt.containers.runtime.root_request import INIT_FILES

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Bits of modes that are kept: what is copied gives nobody rights on this host.
_MODE: Final = 0o777
_DEEPEST: Final = 256


def fill_volume(folder: str, layers: Sequence[Layer], target: str) -> None:
    """Copy what an image has at a path to a volume's directory, if that is empty and the path is a directory. Raise
    EngineError if the host has no room, and StoreError for a layer that is damaged.
    """
    with FilesView(layers) as view:
        try:
            path = view.resolve(target)
            names = view.names(path)
        except PathError:
            return  # there is no such directory
        given = [os.path.basename(one) for one in INIT_FILES if os.path.dirname(one) == path]
        try:
            handle = os.open(folder, _FOLDER)
            try:
                if (names or given) and not os.listdir(handle):
                    os.fchmod(handle, stat.S_IMODE(view.stat(path).mode) & _MODE | stat.S_IRWXU)
                    _copy(view, path, handle, 0)
                    for name in set(given).difference(names):  # on which those of the container are mounted
                        os.close(os.open(name, _NEW_FILE, 0o644, dir_fd=handle))
            finally:
                os.close(handle)
        except OSError as error:
            raise EngineError(f"the files of the image at {target} cannot be copied to a volume: {error}") from None


def _copy(view: FilesView, path: str, folder: int, depth: int) -> None:
    """Copy what is in a directory of the image to an open one of the host."""
    if depth > _DEEPEST:
        raise EngineError(f"the directories of the image at {path[:80]} are too deep for a volume")
    for name in view.names(path):
        inner = f"{path.rstrip('/')}/{name}"
        found = view.stat(inner, follow=False)
        mode = stat.S_IMODE(found.mode) & _MODE
        match stat.S_IFMT(found.mode):
            case stat.S_IFDIR:
                os.mkdir(name, 0o700, dir_fd=folder)
                handle = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    _copy(view, inner, handle, depth + 1)
                    os.fchmod(handle, mode | stat.S_IRWXU)
                    os.utime(handle, ns=(_ns(found.mtime), _ns(found.mtime)))
                finally:
                    os.close(handle)
            case stat.S_IFLNK:
                os.symlink(found.link, name, dir_fd=folder)
            case stat.S_IFREG:
                handle = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
                with os.fdopen(handle, "wb") as file:
                    for piece in view.pieces(inner):
                        file.write(piece)
                    file.flush()
                    os.fchmod(handle, mode)
                    os.utime(handle, ns=(_ns(found.mtime), _ns(found.mtime)))


def _ns(time: tuple[int, int]) -> int:
    seconds, rest = time
    return seconds * 10**9 + rest
