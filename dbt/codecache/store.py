"""Files kept in the cache directory: written atomically, checked when read, never needed.

The directory is ``$DBT_CACHE_DIR``, or ``dbt`` in the XDG cache directory. A file that is missing,
damaged or foreign is as if it were not there; a directory that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """Where cache files live; it may not exist."""
    if explicit := os.environ.get("DBT_CACHE_DIR"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dbt"


def read_file(name: str) -> bytes | None:
    """The content of a cache file, or None if there is none to be read."""
    try:
        return (cache_directory() / name).read_bytes()
    except OSError:
        return None


def write_file(name: str, data: bytes) -> None:
    """Replace a cache file in one step, so that a reader sees all of it or none. Raises OSError."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, directory / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def prune(pattern: str, keep: int) -> None:
    """Remove all but the ``keep`` newest files that match; what cannot be removed stays."""
    found: list[tuple[float, Path]] = []
    for path in cache_directory().glob(pattern):
        with contextlib.suppress(OSError):  # another process may be doing the same
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found)[: max(len(found) - keep, 0)]:
        with contextlib.suppress(OSError):
            path.unlink()
