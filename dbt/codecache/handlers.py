"""The image of the handlers: from the cache directory if it is there, else built and kept."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from dbt.backend.image import Image, ImageDamaged
from dbt.codecache.contents import Kind, entries, remove
from dbt.codecache.quota import KEPT_VERSIONS
from dbt.codecache.store import cache_directory, read_file, write_file

Notice = Callable[[str], None]

_ROOT = Path(__file__).resolve().parents[2]
#: Source folders and files that the image, or a region beside it, is a function of.
_SOURCES = ("isa", "dbt/abi", "dbt/memory/ram.py", "dbt/frontend", "dbt/backend")


class HandlersUnavailable(RuntimeError):
    """The handlers could not be compiled; the message says why and what to do."""


def host_fingerprint() -> bytes:
    """What the native code depends on in the host: its CPU's model and features."""
    wanted = ("vendor_id", "cpu family", "model\t", "model name", "flags")
    lines = []
    with open("/proc/cpuinfo", "rb") as cpuinfo:
        for line in cpuinfo:
            if line == b"\n":
                break
            if line.decode().startswith(wanted):
                lines.append(line)
    return b"".join(lines)


def _llvmlite_fingerprint() -> bytes:
    """The version of llvmlite, without importing it."""
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        return b"none"
    return Path(found.origin).with_name("_version.py").read_bytes()


@cache
def image_key() -> str:
    """A name for the image and the regions that this package makes on this host with this LLVM."""
    digest = hashlib.sha256(host_fingerprint() + _llvmlite_fingerprint())
    for source in _SOURCES:
        path = _ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def cached_image_name() -> str:
    return f"handlers-{image_key()}.img"


def load_image(notice: Notice) -> Image:
    """The image, compiled first if need be; ``notice`` is told in one line what takes time or fails."""
    name = cached_image_name()
    data = read_file(name)
    if data is not None:
        try:
            return Image.unpack(data)
        except ImageDamaged as damage:
            notice(f"the cached translator {cache_directory() / name} is damaged ({damage}); building it again")
    else:
        notice("building the translator's handlers for this machine (a few seconds, once)")
    data = compile_image()
    try:
        write_file(name, data)
        _remove_old_images()
    except OSError as error:
        notice(f"cannot keep the translator in {cache_directory()} ({error.strerror}); it is built at every start")
    return Image.unpack(data)


def _remove_old_images() -> None:
    images = sorted((entry for entry in entries() if entry.kind is Kind.HANDLERS), key=lambda entry: entry.used)
    for entry in images[:-KEPT_VERSIONS]:
        with contextlib.suppress(OSError):
            remove(entry)


def compile_image() -> bytes:
    """Build the image in a process of its own; see :mod:`dbt.backend.build`."""
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "dbt.backend.build"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert child.stdout is not None
        try:
            image = child.stdout.read()
        except BaseException:
            child.kill()  # at Ctrl-C nobody waits for it
            raise
        finally:
            status = child.wait()
        if status:
            errors.seek(0)
            reason = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise HandlersUnavailable(
                f"the translator's handlers could not be compiled (status {status}: {reason[0]}); "
                "check that llvmlite works with `dbt doctor`, or run with --tier reference"
            )
    return image
