"""Files kept in the cache directory: written atomically, checked when read, never needed.

The directory is ``$DBT_CACHE_DIR``, or ``dbt`` in the XDG cache directory. A file that is missing,
damaged or foreign is as if it were not there; a directory that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

#: Bytes of compiled regions that are kept if ``$DBT_CACHE_SIZE`` does not say.
DEFAULT_LIMIT = 256 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: The time of use of a file is exact to so many seconds: to write it down is dearer than to look at it.
USE_RESOLUTION = 3600.0


class WrongCacheSize(ValueError):
    """``$DBT_CACHE_SIZE`` is not a size; the message says what is."""


def cache_directory() -> Path:
    """Where cache files live; it may not exist."""
    if explicit := os.environ.get("DBT_CACHE_DIR"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification says to ignore a relative path
        return Path(base) / "dbt"
    try:
        return Path.home() / ".cache" / "dbt"
    except RuntimeError:  # a user without a home, as in some containers
        return Path("/.cache/dbt")


def cache_limit() -> int:
    """How many bytes of compiled regions to keep: ``$DBT_CACHE_SIZE``, for example 64M. Raises WrongCacheSize."""
    text = os.environ.get("DBT_CACHE_SIZE")
    if not text:
        return DEFAULT_LIMIT
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.upper())
    if found is None:
        raise WrongCacheSize(
            f"DBT_CACHE_SIZE={text}: this is not a size: write for example 256M or 1G, or 0 to keep no compiled regions"
        )
    return int(found[1]) * _UNITS[found[2]]


def read_file(name: str) -> bytes | None:
    """The content of a cache file, or None if there is none to be read."""
    try:
        return (cache_directory() / name).read_bytes()
    except OSError:
        return None


def use_file(path: str) -> bytes | None:
    """The content of a file, whose time of modification becomes its time of use; None if there is none to be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if abs(time.time() - status.st_mtime) > USE_RESOLUTION:
            with contextlib.suppress(OSError):  # a directory that may be read only
                os.utime(handle)
        return os.read(handle, status.st_size)
    except OSError:
        return None
    finally:
        os.close(handle)


def write_file(name: str, data: bytes) -> None:
    """Replace a cache file in one step, so that a reader sees all of it or none. Raises OSError."""
    path = cache_directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
