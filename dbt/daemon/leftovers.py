"""What a daemon that was killed has left, and nobody has any use for."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection
from uuid import UUID

from dbt.daemon.saved_definitions import DEFINITION, SAVED

#: How the names end of files that were being written (:mod:`dbt.snapshot.replacement`).
_UNFINISHED = (f"{SAVED}.part", f"{SAVED}{DEFINITION}.part")
_log = logging.getLogger(__name__)


def remove_leftovers(directory: str, domains: Collection[UUID], files: Collection[str]) -> None:
    """Remove saved machines from the daemon's directory of them that belong to none of the ``domains``, or are none of
    the ``files`` that are remembered. Other files are left alone.
    """
    folders = [directory]
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if (uuid := _uuid(entry.name)) is None or not entry.is_dir(follow_symlinks=False):
                continue
            if uuid in domains:
                folders.append(entry.path)
            else:
                _remove(entry.path, shutil.rmtree)
    for folder in folders:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            state = path.removesuffix(DEFINITION)
            if name.endswith(_UNFINISHED) or (state.endswith(SAVED) and state not in files):
                _remove(path, os.unlink)


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _remove(path: str, work: Callable[[str], None]) -> None:
    try:
        work(path)
    except OSError as error:
        _log.error("%s cannot be removed, which a daemon that was killed has left: %s", path, error.strerror)
    else:
        _log.info("%s is removed, which a daemon that was killed has left", path)
