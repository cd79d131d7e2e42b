"""The files of the cache directory. They are written atomically and checked when they are read, and none is needed.

The directory is ``$DBT_CACHE_DIR``, or ``dbt`` in the XDG cache directory. A file that is missing or damaged, or
that somebody else could have written (:mod:`dbt.codecache.trust`), is treated as if it did not exist. If the directory
cannot be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import time

from dbt.codecache.trust import UntrustedCacheError, open_directory, open_file, open_folder

#: How many bytes of compiled regions are kept if ``$DBT_CACHE_SIZE`` is not set.
DEFAULT_LIMIT = 256 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: The time of use of a file is exact to this many seconds, because writing it costs more than reading it.
USE_RESOLUTION = 3600.0
_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600


class WrongCacheSize(ValueError):
    """Raised if ``$DBT_CACHE_SIZE`` is not a size. The message says what a size looks like."""


def cache_directory() -> str:
    """Return the path of the cache directory, which need not exist."""
    if explicit := os.environ.get("DBT_CACHE_DIR"):
        return explicit
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification says to ignore a relative path
        return f"{base}/dbt"
    home = os.path.expanduser("~")
    return (
        f"{home.rstrip('/')}/.cache/dbt" if home != "~" else "/.cache/dbt"
    )  # a user without a home, as in some containers


def not_written(error: OSError) -> str:
    """Return what a user is told if nothing can be written to the cache directory: why, and what helps."""
    if isinstance(error, UntrustedCacheError):
        return str(error)
    return (
        f"cannot write to {cache_directory()} ({error.strerror}). Let DBT_CACHE_DIR name a directory that you may write"
    )


def cache_limit() -> int:
    """Return how many bytes of compiled regions to keep: ``$DBT_CACHE_SIZE``, for example 64M. Raise WrongCacheSize."""
    text = os.environ.get("DBT_CACHE_SIZE")
    if not text:
        return DEFAULT_LIMIT
    import re

    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.upper())
    if found is None:
        raise WrongCacheSize(
            f"DBT_CACHE_SIZE={text}: this is not a size: write for example 256M or 1G, or 0 to keep no new regions"
        )
    return int(found[1]) * _UNITS[found[2]]


def read_file(name: str) -> bytes | None:
    """Return the content of the cache file ``name``, or None if there is none that can be read and trusted."""
    try:
        return load_file(name)
    except OSError:
        return None


def load_file(name: str) -> bytes:
    """Return the content of the cache file ``name``. Raise OSError, UntrustedCacheError among them."""
    return _load(name, use=False)


def has_file(name: str) -> bool:
    """Return True if there is a cache file ``name``, trusted or not. It takes one system call."""
    return os.path.lexists(f"{cache_directory()}/{name}")


def check_file(name: str) -> None:
    """Raise OSError unless there is a cache file ``name``, UntrustedCacheError if somebody else could have written it.

    As only the user can put another file in its place then, it can be opened by its path afterwards.
    """
    path, directory = _open_parent(name)
    try:
        os.close(open_file(directory, name[name.rfind("/") + 1 :], path)[0])
    finally:
        os.close(directory)


def use_file(name: str) -> bytes | None:
    """Return what :func:`read_file` does, and set the file's time of modification, which serves as its time of use."""
    if not has_file(name):  # as for most code that becomes warm
        return None
    try:
        return _load(name, use=True)
    except OSError:
        return None


def _load(name: str, use: bool) -> bytes:
    """Return the content of the file, up to the size that it had when it was opened."""
    path, directory = _open_parent(name)
    try:
        handle, status = open_file(directory, name[name.rfind("/") + 1 :], path)
    finally:
        os.close(directory)
    try:
        if use and abs(time.time() - status.st_mtime) > USE_RESOLUTION:
            with contextlib.suppress(OSError):  # a directory that may be read only
                os.utime(handle)
        return os.read(handle, status.st_size)
    finally:
        os.close(handle)


def _open_parent(name: str) -> tuple[str, int]:
    """Return the path and a descriptor of the directory that holds ``name``: the cache directory or a folder in it."""
    path = cache_directory()
    directory = open_directory(path)
    slash = name.rfind("/")
    if slash < 0:
        return path, directory
    try:
        return f"{path}/{name[:slash]}", open_folder(directory, name[:slash], path)
    finally:
        os.close(directory)


def check_folder(name: str = "") -> None:
    """Raise UntrustedCacheError if the cache directory, or the folder ``name`` in it, exists and is not trusted."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.close(_open_parent(f"{name}/" if name else "")[1])


def write_file(name: str, data: bytes) -> None:
    """Replace a cache file in one step, so that a reader sees all of it or none. Raise OSError.

    Directories that are missing are made for the user alone, and so is the file, whatever the umask.
    """
    folder, _, leaf = name.rpartition("/")
    make_cache_directory()
    if folder:
        _make_folder(folder)
    directory = _open_parent(name)[1]
    try:
        _replace(directory, leaf, data)
    finally:
        os.close(directory)


def remove_file(name: str) -> None:
    """Remove a cache file, if there is one and its directory is trusted."""
    with contextlib.suppress(OSError):
        directory = _open_parent(name)[1]
        try:
            os.unlink(name[name.rfind("/") + 1 :], dir_fd=directory)
        finally:
            os.close(directory)


def _make_folder(name: str) -> None:
    directory = _open_parent("")[1]
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=directory)
    finally:
        os.close(directory)


def _replace(directory: int, name: str, data: bytes) -> None:
    temporary = f".{name}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, _PRIVATE_FILE, dir_fd=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, _PRIVATE_FILE)
            file.write(data)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise


def make_cache_directory() -> None:
    """Make the cache directory, and those above it that are missing, for the user alone. Raise OSError."""
    missing = []
    path = cache_directory()
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, _PRIVATE_DIRECTORY)
