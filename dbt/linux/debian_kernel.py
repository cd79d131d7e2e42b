"""Reads the kernel and the modules that a Linux guest needs from one of Debian's packages of a kernel.

A package is an archive in the format of ar(1), with a few lines about the package and the files in two compressed tar
archives (deb(5)). It comes from wherever the user has it from, so each size is limited and nothing of it is unpacked to
the disk.
"""

from __future__ import annotations

import gzip
import io
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final, NamedTuple, cast

from dbt.linux.images import LinuxGuestError
from dbt.linux.initramfs import DIRECTORY, PROGRAM, archive

#: Modules without which programs or containers do not work, as their names are in Linux (with "_").
_NEEDED: Final = (
    *("virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng", "9pnet_virtio", "9p"),
    *("overlay", "ext4", "erofs"),
)
#: What others ask for by the name of an algorithm, if it is not in the kernel itself.
_FIRST: Final = ("crc32c_generic",)
#: Others, which programs use where there are any.
_WELCOME: Final = ("squashfs", "loop", "fuse", "binfmt_misc", "bridge", "dummy", "veth", "tun")
#: The agent numbers modules with two digits.
_MOST_MODULES: Final = 100
_MOST_KERNEL: Final = 64 << 20
_MOST_MODULE: Final = 16 << 20
#: Of all modules that a guest gets, which are in its RAM at first.
_MOST_UNPACKED: Final = 128 << 20
_MOST_FILES: Final = 1 << 30
_MOST_CONTROL: Final = 1 << 20
_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = 60
#: How modules begin that are compressed, whatever their names say (CONFIG_MODULE_COMPRESS_*).
_XZ, _GZIP, _ZSTD = b"\xfd7zXZ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: Where a zImage for ARM says so (Documentation/arm/booting.rst), and what is there.
_ZIMAGE_AT: Final = 0x24
_ZIMAGE: Final = 0x016F2818
#: What the libraries raise for damaged data.
_DAMAGE: Final = (tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


class DebianKernel(NamedTuple):
    """A kernel (zImage), the modules that a guest needs as an archive for its initial RAM disk, and what it is: for
    example ``linux-image-6.1.0-50-armmp 6.1.176-1 armhf``.
    """

    origin: str
    kernel: bytes
    modules: bytes


class _Bounded(io.RawIOBase):
    """What a decompressor gives, up to a limit in bytes."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source, self._left = source, limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise LinuxGuestError("it unpacks to more than a kernel's package has")
        return data


def read_package(path: str) -> DebianKernel:
    """Read a package (``linux-image-*.deb``). Raise LinuxGuestError if it has no kernel that a guest can have, and
    OSError if it cannot be read.
    """
    import zstandard

    try:
        with open(path, "rb") as file:
            return _read(file)
    except LinuxGuestError as error:
        raise LinuxGuestError(f"{path}: {error}") from None
    except (*_DAMAGE, zstandard.ZstdError) as error:
        raise LinuxGuestError(f"{path}: the package is damaged: {error}") from None


def _read(file: IO[bytes]) -> DebianKernel:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise LinuxGuestError("this is no Debian package")
    origin = kernel = None
    modules: dict[str, bytes] = {}
    built_in: frozenset[str] = frozenset()
    for name in _members(file):
        if name.startswith("control.tar"):
            origin = _origin(_decompressed(file, name, _MOST_CONTROL))
        elif name.startswith("data.tar"):
            for inner, content in _files(_decompressed(file, name, _MOST_FILES)):
                if inner.startswith("boot/vmlinuz-"):
                    kernel = content
                elif inner.endswith("/modules.builtin"):
                    built_in = frozenset(map(_module_name, content.decode().split()))
                else:
                    modules[_module_name(inner)] = content
    if origin is None or kernel is None:
        raise LinuxGuestError(
            "there is no kernel in it (boot/vmlinuz-...). Debian's linux-image-armmp depends on the one that has it"
        )
    if int.from_bytes(kernel[_ZIMAGE_AT : _ZIMAGE_AT + 4], "little") != _ZIMAGE:
        raise LinuxGuestError(f"the kernel of {origin} is none for 32-bit ARM: take linux-image-armmp for armhf")
    return DebianKernel(origin, kernel, _archive(origin, modules, built_in))


def _members(file: IO[bytes]) -> Iterator[str]:
    """Yield the name of each member of the package, with the file at its content."""
    at = len(_MAGIC)
    while True:
        file.seek(at)
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            return
        if header[58:] != b"`\n":
            raise ValueError(f"there is no header of a member at {at}")
        yield header[:16].decode("ascii", "replace").rstrip(" /")
        size = int(header[48:58])
        if size < 0:
            raise ValueError(f"the member at {at} has {size} bytes")
        at += _HEADER + size + size % 2


def _decompressed(file: IO[bytes], name: str, limit: int) -> IO[bytes]:
    """Return a stream of a tar archive that begins where the file is. It closes nothing."""
    import zstandard

    def zstd(file: IO[bytes]) -> IO[bytes]:
        return zstandard.ZstdDecompressor().stream_reader(file, closefd=False)

    def gunzip(file: IO[bytes]) -> IO[bytes]:
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))

    suffix = name.rpartition(".")[2]
    decompressors: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {"xz": lzma.open, "gz": gunzip, "zst": zstd}
    if suffix not in decompressors:
        raise ValueError(f"{name} is compressed in a way that is not known")
    return cast(IO[bytes], _Bounded(decompressors[suffix](file), limit))


def _origin(stream: IO[bytes]) -> str:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if posixpath.normpath(member.name) == "control" and member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                fields = dict(re.findall(r"^([A-Za-z-]+): *([^\n]*)$", content.read().decode(errors="replace"), re.M))
                return " ".join(fields.get(field, "?") for field in ("Package", "Version", "Architecture"))
    raise ValueError("it does not say what package it is")


def _files(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of the kernel, of each module, and of the list of what is built in."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = posixpath.normpath(member.name).removeprefix("usr/")
            is_kernel = path.startswith("boot/vmlinuz-")
            is_module = path.startswith("lib/modules/") and ".ko" in posixpath.basename(path)
            if not member.isfile() or not (is_kernel or is_module or path.endswith("/modules.builtin")):
                continue
            if member.size > (_MOST_KERNEL if is_kernel else _MOST_MODULE):
                raise LinuxGuestError(f"{path} has {member.size} bytes, which is too much")
            content = tar.extractfile(member)
            assert content is not None
            yield path, content.read()


def _module_name(path: str) -> str:
    """Return what Linux calls the module of a file."""
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _plain(name: str, content: bytes) -> bytes:
    """Return a module as it is when it is not compressed."""
    import zstandard

    if content.startswith(_XZ):
        return _Bounded(lzma.open(io.BytesIO(content)), _MOST_MODULE).read()
    if content.startswith(_GZIP):
        return _Bounded(cast(IO[bytes], gzip.GzipFile(fileobj=io.BytesIO(content))), _MOST_MODULE).read()
    if content.startswith(_ZSTD):
        if zstandard.frame_content_size(content) > _MOST_MODULE:
            raise LinuxGuestError(f"the module {name} unpacks to more than {_MOST_MODULE} bytes")
        # All at once, so that a frame without its end is damage: a stream would just end there.
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=_MOST_MODULE)
    return content


def _archive(origin: str, modules: dict[str, bytes], built_in: frozenset[str]) -> bytes:
    """Return the modules that a guest needs, each after those that it needs itself."""
    missing = [name for name in _NEEDED if name not in modules and name not in built_in]
    if missing:
        raise LinuxGuestError(
            f"the kernel of {origin} has no {' and no '.join(missing)}: take linux-image-armmp for armhf"
        )
    order: dict[str, bytes] = {}
    unpacked: list[int] = []

    def add(name: str, above: tuple[str, ...] = ()) -> None:
        if name in order or name in built_in or name not in modules:
            return
        if name in above:
            raise ValueError(f"the module {name} needs itself")
        content = _plain(name, modules[name])
        unpacked.append(len(content))
        if len(unpacked) > _MOST_MODULES or sum(unpacked) > _MOST_UNPACKED:
            raise LinuxGuestError(
                f"a guest with this kernel needs more than {_MOST_MODULES} modules, or {_MOST_UNPACKED} bytes of them"
            )
        found = _DEPENDS.search(content)
        for other in found[1].decode("ascii", "replace").split(",") if found else ():
            add(other.replace("-", "_"), (*above, name))
        order[name] = content

    for name in (*_FIRST, *_NEEDED, *_WELCOME):
        add(name)
    files = [(f"modules/{number:02}", PROGRAM, content, (0, 0)) for number, content in enumerate(order.values())]
    return archive([("modules", DIRECTORY, b"", (0, 0)), *files]) if files else b""
