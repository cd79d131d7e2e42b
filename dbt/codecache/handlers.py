"""Getting the image of the handlers: from the cache directory, or by building and keeping it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder

from dbt.backend.digest import digest
from dbt.backend.image import Image, ImageDamaged
from dbt.codecache.interpreter import ROOT, python_command, python_environment
from dbt.codecache.store import cache_directory, check_folder, load_file, not_written, write_file
from dbt.codecache.trust import UntrustedCacheError

Notice = Callable[[str], None]

#: The source folders and files that the image and the regions depend on.
_SOURCES = (
    "isa",
    "dbt/abi",
    "dbt/memory/ram.py",
    "dbt/memory/dirty_log.py",
    "dbt/devices",
    "dbt/frontend",
    "dbt/backend",
    "dbt/hypervisor/xen/console.py",
    "dbt/hypervisor/xen/domain.py",
    "dbt/hypervisor/xen/event_channels.py",
    "dbt/hypervisor/xen/event_queues.py",
    "dbt/hypervisor/xen/identity.py",
    "dbt/hypervisor/xen/interface.py",
    "dbt/hypervisor/xen/shared_page.py",
    "dbt/hypervisor/xen/pv/guest.py",
    "dbt/hypervisor/xen/pv/monitor.py",
    "dbt/hypervisor/xen/pv/page_types.py",
)


class HandlersUnavailable(RuntimeError):
    """Raised if the handlers cannot be compiled. The message gives the reason and the remedy."""


def host_fingerprint() -> bytes:
    """Return what native code depends on in the host: the model and the features of its CPU, as bytes."""
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
    """Return the version of llvmlite as bytes, without importing it."""
    found = PathFinder.find_spec("llvmlite")
    if found is None or found.origin is None:
        return b"none"
    return _content(os.path.join(os.path.dirname(found.origin), "_version.py"))


@cache
def image_key() -> str:
    """Return a name for the image and the regions that this package makes on this host with this LLVM."""
    parts = [host_fingerprint(), _llvmlite_fingerprint()]
    for name, content in _source_files():
        parts += name.encode(), b"\0", content, b"\0"
    return digest(b"".join(parts)).hex()[:32]


def _source_files() -> Iterator[tuple[str, bytes]]:
    """Yield the names of the source files, relative to the root of the package, and what they hold."""
    if not os.path.isdir(ROOT):
        yield from _files_in_archive()
        return
    for name in sorted(_names_in(_SOURCES)):
        yield name, _content(f"{ROOT}/{name}")


def _names_in(sources: Iterable[str]) -> Iterator[str]:
    """Yield the names of source files, and of those that are in folders among ``sources``."""
    for source in sources:
        if source.endswith(".py"):
            yield source
        elif os.path.basename(source) != "__pycache__":
            with os.scandir(f"{ROOT}/{source}") as found:
                inner = [f"{source}/{item.name}" for item in found if item.name.endswith(".py") or item.is_dir()]
            yield from _names_in(inner)


def _content(path: str) -> bytes:
    """Return what a file holds. Each start reads all sources, so that this makes no more system calls than it must."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)


def _files_in_archive() -> Iterator[tuple[str, bytes]]:
    """Yield the same for a package that is imported from a zip archive."""
    from zipfile import ZipFile

    with ZipFile(ROOT) as archive:
        for name in sorted(archive.namelist()):
            if name in _SOURCES or (name.endswith(".py") and name.startswith(tuple(f"{part}/" for part in _SOURCES))):
                yield name, archive.read(name)


def cached_image_name() -> str:
    return f"handlers-{image_key()}.img"


def image_version() -> tuple[object, ...] | None:
    """Return what is another value when the file of the image is another one, or None if there is no file."""
    name = cached_image_name()
    path = f"{cache_directory()}/{name}"
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid


def load_image(notice: Notice) -> Image:
    """Return the image, compiled first if need be.

    ``notice`` is told in one line what takes time, what fails, and what is not used because somebody else could have
    written it. A cache directory that is not to be trusted is not written to either.
    """
    name = cached_image_name()
    keep = True
    _report_untrusted_folder(notice)
    try:
        return Image.unpack(load_file(name))
    except ImageDamaged as damage:
        notice(f"the cached translator {cache_directory()}/{name} is damaged ({damage}); building it again")
    except UntrustedCacheError as error:
        keep = error.filename != cache_directory()
        notice(f"{error}. The translator is built now (a few seconds{'' if keep else ', at every start'})")
    except OSError:
        notice("building the translator's handlers for this machine (a few seconds, once)")
    data = compile_image()
    try:
        if keep:
            write_file(name, data)
            _remove_old_images()
    except OSError as error:
        notice(f"the translator is built at every start: {not_written(error)}")
    return Image.unpack(data)


def _report_untrusted_folder(notice: Notice) -> None:
    """Tell ``notice`` if the folder of regions is not used. The reader of the image reports on the directory itself."""
    try:
        check_folder(f"regions-{image_key()}")
    except UntrustedCacheError as error:
        if error.filename != cache_directory():
            notice(str(error))
    except OSError:  # then there are no regions
        pass


def _remove_old_images() -> None:
    from dbt.codecache.contents import Kind, entries, remove
    from dbt.codecache.quota import KEPT_VERSIONS

    images = sorted((entry for entry in entries() if entry.kind is Kind.HANDLERS), key=lambda entry: entry.used)
    for entry in images[:-KEPT_VERSIONS]:
        with contextlib.suppress(OSError):
            remove(entry)


_BUILDER = """\
from dbt.codecache.interpreter import die_with
die_with({parent})
from dbt.backend.build_process import write_image
write_image(die_with)
"""


def compile_image() -> bytes:
    """Build the image in a process of its own, which ends with this one; see :mod:`dbt.backend.build_process`."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            python_command(_BUILDER.format(parent=os.getpid())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=python_environment(),
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
            raise _unavailable(status, errors.read().decode(errors="replace").strip())
    return image


def _unavailable(status: int, output: str) -> HandlersUnavailable:
    """Return what to raise after a builder that has ended with ``status`` and has written ``output`` as errors."""
    from dbt.backend.build_process import NOT_GENERATED

    reason = output.splitlines()[-1] if output else "no message"
    if status == NOT_GENERATED:
        message = f"the translator's handlers cannot be generated from the sources as they are: {reason}"
    else:
        message = (
            f"the translator's handlers could not be compiled (status {status}: {reason}); "
            "check that llvmlite works with `dbt doctor`, or run with --tier reference"
        )
    error = HandlersUnavailable(message)
    error.add_note(f"The builder wrote:\n{output}")  # DBT_DEBUG=1 shows it
    return error
