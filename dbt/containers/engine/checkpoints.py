"""The checkpoints of a container: directories from which it can go on."""

from __future__ import annotations

import os
import re
import shutil

from dbt.containers.engine.errors import BadParameter, Conflict, NotFound

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Checkpoints:
    """The checkpoints in ``folder``, or in another directory that a client names."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _of(self, name: str, folder: str) -> str:
        if not _NAME.fullmatch(name):
            raise BadParameter(f"Invalid checkpoint ID ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        return os.path.join(folder or self._folder, name)

    def path(self, name: str, folder: str = "") -> str:
        """Return the directory of a checkpoint. Raise NotFound or BadParameter."""
        path = self._of(name, folder)
        if not os.path.isdir(path):
            raise NotFound(f"checkpoint {name} does not exist")
        return path

    def new_path(self, name: str, folder: str = "") -> str:
        """Return the directory of a checkpoint that is to be made. Raise Conflict or BadParameter."""
        path = self._of(name, folder)
        if os.path.exists(path):
            raise Conflict(f"checkpoint with name {name} already exists for container")
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return path

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all checkpoints."""
        try:
            return sorted(entry.name for entry in os.scandir(folder or self._folder) if entry.is_dir())
        except FileNotFoundError:
            return []

    def remove(self, name: str, folder: str = "") -> None:
        """Remove a checkpoint. Raise NotFound or BadParameter."""
        shutil.rmtree(self.path(name, folder))
