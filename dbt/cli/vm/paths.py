"""Paths in the options of a machine, which are to mean the same wherever the daemon is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dbt.cli.values import parse_drive

#: The options whose value is a path.
_PATHS: Final = ("program", "root", "kernel", "initrd", "dtb", "files")
_OF_DRIVES: Final = ("file", "overlay", "backing")


def absolute(path: str, directory: str) -> str:
    return os.path.normpath(os.path.join(directory, os.path.expanduser(path)))


def absolute_drive(text: str, directory: str) -> str:
    """Return the text of ``--drive`` with absolute paths. A comma in a name is written twice."""
    return _with_paths(text, lambda path: absolute(path, directory))


def moved_drives(texts: Sequence[str], directory: str) -> list[str]:
    """Return texts of ``--drive`` whose files are to be in a directory: those that a guest writes to, and others that
    are not where they are said to be. No two get one name.
    """
    new: dict[str, str] = {}
    for text in texts:
        for path, writable in parse_drive("drive", text).files:
            if path not in new and (writable or not os.path.exists(path)):
                name = os.path.basename(path)
                is_taken = os.path.join(directory, name) in new.values()
                new[path] = os.path.join(directory, f"{len(new)}-{name}" if is_taken else name)
    return [_with_paths(text, lambda path: new.get(path, path)) for text in texts]


def _with_paths(text: str, change: Callable[[str], str]) -> str:
    """Return the text of ``--drive`` with other paths of its files."""
    parts = text.replace(",,", "\0").split(",")
    for number, part in enumerate(parts):
        name, equals, path = part.partition("=")
        if equals and name in _OF_DRIVES:
            parts[number] = f"{name}=" + change(path.replace("\0", ",")).replace(",", "\0")
    return ",".join(parts).replace("\0", ",,")


def absolute_options(machine: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Return the options that name files, with absolute paths. Their types have been checked."""

    def of_socket(text: str) -> str:
        head, colon, path = text.partition("unix:")
        return f"{head}{colon}{absolute(path, directory)}" if colon and path else text

    found: dict[str, Any] = {}
    for name, value in machine.items():
        if name in _PATHS:
            found[name] = absolute(str(value), directory)
        elif name == "drive":
            found[name] = [absolute_drive(text, directory) for text in value]
        elif name == "share":
            found[name] = [absolute(text, directory) for text in value]
        elif name == "net":
            found[name] = [of_socket(text) for text in value]
        elif name in ("vsock", "xenstore"):
            found[name] = of_socket(str(value))
    return found
