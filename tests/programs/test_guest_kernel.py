"""Kernels of Debian packages: what is taken from one, what is refused, and that programs run with it."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from dbt.linux import debian_kernel
from dbt.linux.debian_kernel import read_package
from dbt.linux.images import KERNEL, LinuxGuestError, import_folder, kernel_folder, read_guest_files
from dbt.linux.imported import keep, origin, remove
from tests.programs.running import WORDS

NAMES = ("virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio-rng", "9pnet_virtio", "9p", "overlay")
ZIMAGE = b"\xfe\xff\xff\xea" * 9 + (0x016F2818).to_bytes(4, "little") + b"kernel"
CONTROL = b"Package: linux-image-test\nVersion: 6.1-1\nArchitecture: armhf\n"
COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bytes,
}
MODULES = "lib/modules/6.1/kernel"
IMAGES = os.environ.get("DBT_VIRT_IMAGES")


def module(name: str, *depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=%s\0name=%s\0" % (",".join(depends).encode(), name.encode())


def files() -> dict[str, bytes]:
    """Return the files of a package of a kernel."""
    found = {"boot/vmlinuz-6.1": ZIMAGE, "lib/modules/6.1/modules.builtin": b"kernel/fs/erofs.ko\n"}
    found |= {f"{MODULES}/{name}.ko": module(name) for name in NAMES}
    found[f"{MODULES}/ext4.ko"] = module("ext4", "jbd2", "crc-16")
    found[f"{MODULES}/jbd2.ko"] = module("jbd2")
    found[f"{MODULES}/crc-16.ko"] = module("crc_16")
    return found


def tar(contents: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def package(contents: Mapping[str, bytes], suffix: str = ".xz", control: bytes = CONTROL) -> bytes:
    compress = COMPRESS[suffix]
    data = b"!<arch>\n"
    for name, member in (
        ("debian-binary", b"2.0\n"),
        (f"control.tar{suffix}", compress(tar({"control": control}))),
        (f"data.tar{suffix}", compress(tar(contents))),
    ):
        data += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode()
            + member
            + b"\n" * (len(member) % 2)
        )
    return data


def write(folder: Path, data: bytes) -> str:
    path = folder / "kernel.deb"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst"])
def test_a_kernel_and_its_modules_in_the_order_of_their_needs(tmp_path: Path, suffix: str) -> None:
    kernel = read_package(write(tmp_path, package(files(), suffix)))
    assert kernel.origin == "linux-image-test 6.1-1 armhf" and kernel.kernel == ZIMAGE
    places = [kernel.modules.index(f"name={name}\0".encode()) for name in ("jbd2", "crc_16", "ext4")]
    assert places == sorted(places)
    assert kernel.modules.count(b"\x7fELF") == len(NAMES) + 3
    assert b"modules/10" in kernel.modules and b"modules/11" not in kernel.modules


def with_compressed(name: str, suffix: str, content: bytes) -> bytes:
    """Return a package in which a module is as the kernel's build compresses it."""
    contents = files()
    del contents[f"{MODULES}/{name}.ko"]
    return package({**contents, f"{MODULES}/{name}.ko{suffix}": content})


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst"])
def test_modules_that_are_compressed(tmp_path: Path, suffix: str) -> None:
    plain = module("ext4", "jbd2", "crc-16")
    kernel = read_package(write(tmp_path, with_compressed("ext4", suffix, COMPRESS[suffix](plain))))
    assert plain in kernel.modules and kernel.modules.index(b"name=jbd2\0") < kernel.modules.index(plain)


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".zst"])
def test_modules_that_unpack_to_too_much_or_have_no_end(tmp_path: Path, suffix: str) -> None:
    bomb = COMPRESS[suffix](bytes((16 << 20) + 1))
    with pytest.raises(LinuxGuestError, match="unpacks to more than"):
        read_package(write(tmp_path, with_compressed("ext4", suffix, bomb)))
    cut = COMPRESS[suffix](random.Random(1).randbytes(10000))[:-100]
    with pytest.raises(LinuxGuestError, match="the package is damaged"):
        read_package(write(tmp_path, with_compressed("ext4", suffix, cut)))


def test_a_zstd_frame_that_does_not_say_its_size_is_bounded(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    plain = module("ext4", "jbd2")
    assert plain in read_package(write(tmp_path, with_compressed("ext4", ".zst", compressor.compress(plain)))).modules
    with pytest.raises(LinuxGuestError, match="the package is damaged"):
        read_package(write(tmp_path, with_compressed("ext4", ".zst", compressor.compress(bytes((16 << 20) + 1)))))


@pytest.mark.parametrize(("count", "size"), [(200, 10), (20, 100_000)])
def test_modules_that_need_too_much_together(
    tmp_path: Path, count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them needs the next one."""
    monkeypatch.setattr(debian_kernel, "_MOST_UNPACKED", 1 << 20)
    contents = files() | {f"{MODULES}/jbd2.ko": module("jbd2", "x0")}
    for number in range(count):
        content = module(f"x{number}", f"x{number + 1}") + bytes(size)
        contents[f"{MODULES}/x{number}.ko.gz"] = gzip.compress(content, 1)
    with pytest.raises(LinuxGuestError, match="needs more than 100 modules, or "):
        read_package(write(tmp_path, package(contents, ".gz")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "this is no Debian package"),
        (b"\x7fELF" * 100, "this is no Debian package"),
        (b"!<arch>\n" + b"x" * 60, "no header of a member at 8"),
        (package({}), "there is no kernel in it"),
        (package(files() | {"boot/vmlinuz-6.1": b"MZ" * 100}), "is none for 32-bit ARM"),
        (package({name: data for name, data in files().items() if "virtio_mmio" not in name}), "has no virtio_mmio"),
        (package(files(), ".bz2"), "compressed in a way that is not known"),
        (package(files())[:-200], "the package is damaged"),
        (package(files() | {f"{MODULES}/jbd2.ko": module("jbd2", "ext4")}), "needs itself"),
        (package(files() | {f"{MODULES}/big.ko": bytes((16 << 20) + 1)}), "is too much"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(LinuxGuestError, match=message) as caught:
        read_package(write(tmp_path, data))
    assert str(caught.value).startswith(str(tmp_path))


def test_packages_that_are_damaged_end_in_a_message(tmp_path: Path) -> None:
    data = package(files(), ".gz")
    source = random.Random(7)
    refused = 0
    for _ in range(300):
        mutant = bytearray(data)
        for _ in range(source.randint(1, 4)):
            mutant[source.randrange(len(mutant))] = source.randrange(256)
        try:
            read_package(write(tmp_path, bytes(mutant)))
        except LinuxGuestError:
            refused += 1
    assert refused > 100


def test_what_is_imported_is_used_until_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("DBT_LINUX_GUEST", raising=False)
    before = kernel_folder()
    assert not remove()
    kernel = read_package(write(tmp_path, package(files())))
    for number in range(2):
        folder = keep(kernel._replace(origin=str(number)))
        assert folder == kernel_folder() == import_folder() and origin(folder) == str(number)
        used = read_guest_files()
        assert (used.kernel, used.modules) == (kernel.kernel, kernel.modules)
    assert len(list((tmp_path / "dbt").iterdir())) == 2  # the directory, and the link to it
    assert remove() and kernel_folder() == before
    assert list((tmp_path / "dbt").iterdir()) == []


def test_an_import_that_fails_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    kernel = read_package(write(tmp_path, package(files())))
    keep(kernel)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keep(kernel._replace(kernel=b"other"))
    assert (Path(import_folder()) / KERNEL).read_bytes() == kernel.kernel
    assert len(list((tmp_path / "dbt").iterdir())) == 2


def dbt(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_DATA_HOME": str(home)}
    command = [sys.executable, "-m", "dbt", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_command_refuses_a_kernel_that_does_not_come_up(tmp_path: Path) -> None:
    path = write(tmp_path, package(files()))
    done = dbt("guest", "import", path, home=tmp_path)
    assert done.returncode == 121 and "does not come up" in done.stderr
    assert not (tmp_path / "dbt").exists()
    missing = dbt("guest", "import", str(tmp_path / "none.deb"), home=tmp_path)
    assert missing.returncode == 121 and "none.deb: No such file or directory" in missing.stderr


@pytest.mark.skipif(not IMAGES, reason="DBT_VIRT_IMAGES names no directory with Debian's kernel")
def test_a_program_runs_with_debians_kernel(tmp_path: Path) -> None:
    (path,) = Path(IMAGES or "").glob("packages/linux-image-6*.deb")
    assert dbt("guest", "import", str(path), home=tmp_path).returncode == 0
    said = dbt("guest", "info", home=tmp_path).stdout
    assert "armmp" in said and str(tmp_path) in said
    done = dbt("run", WORDS, "say", "one", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert dbt("guest", "remove", home=tmp_path).returncode == 0
