"""qcow2 images: what qemu-img has written is read, and what nobody would write does no harm."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from dbt.devices.medium import OverlaidMedium
from dbt.host.disk import DiskError, RawFile
from dbt.host.disk_media import OpenDrive
from dbt.host.drive import Backing, Drive
from dbt.host.qcow2 import DamagedImage, Qcow2File
from tests.host.qcow2_images import NEEDS_QEMU_IMG, qemu_img, small_content, small_image, some_disk
from tests.long import LONG

_SIZE = 3_000_320


def check_reads(file: Qcow2File, wanted: bytes, seed: int = 0) -> None:
    random = Random(seed)
    assert file.size == len(wanted)
    assert file.read(0, len(wanted)) == wanted
    for _ in range(100):
        at = random.randrange(len(wanted))
        size = random.choice((1, 512, 4096, 70_000, 300_000))
        assert file.read(at, size) == wanted[at : at + size].ljust(size, b"\0")


@NEEDS_QEMU_IMG
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "compat=0.10", "-c"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "cluster_size=512", "-c"),
        ("-o", "cluster_size=2M", "-c"),
        ("-c",),
        ("-c", "-o", "compression_type=zstd"),
        ("-c", "-o", "compression_type=zstd,cluster_size=2M"),
        ("-o", "preallocation=metadata"),
        ("-o", "refcount_bits=64,lazy_refcounts=on"),
    ],
)
def test_what_qemu_has_written(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    wanted = some_disk(raw, _SIZE)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, raw, image)
    with Qcow2File(str(image)) as file:
        check_reads(file, wanted)


@NEEDS_QEMU_IMG
def test_a_chain_of_images_that_were_named(tmp_path: Path) -> None:
    """Clusters of both, zeros that hide what is behind them, and a disk that is larger than what is behind it."""
    raw, middle, top = (tmp_path / name for name in ("raw", "middle", "top"))
    some_disk(raw, _SIZE)
    qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", middle, _SIZE + 200_192)
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", middle, "-F", "qcow2", top, _SIZE + 500_736)
    for image, commands in (
        (middle, ("write -P 0x77 100k 300k", "write -z 1M 500k")),
        (top, ("write -P 0x88 150k 30k", "write -P 0x99 3100k 40k", "write -z 2000k 70k")),
    ):
        qemu_io(image, *commands)
    flat = tmp_path / "flat"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", top, flat)
    named = (Backing(str(middle), "qcow2"), Backing(str(raw)))
    opened = OpenDrive(Drive(str(top), read_only=True, format="qcow2", backing=named))
    assert isinstance(opened.file, Qcow2File)
    check_reads(opened.file, flat.read_bytes())
    before = opened.file.version()
    os.utime(raw, ns=(5, 5))
    assert opened.file.version() != before
    opened.close()
    with pytest.raises(DiskError, match=r"is made on a backing file, which it calls '.*/middle'"):
        OpenDrive(Drive(str(top), read_only=True, format="qcow2"))
    with pytest.raises(DiskError, match=r"middle is made on a backing file, which it calls '.*/raw'"):
        OpenDrive(Drive(str(top), read_only=True, format="qcow2", backing=named[:1]))
    with pytest.raises(
        DiskError, match=r"has the format qcow2, and .*/middle was given as raw: write `backing-format=qcow2`"
    ):
        OpenDrive(Drive(str(top), read_only=True, format="qcow2", backing=(Backing(named[0].path),)))
    with pytest.raises(DiskError, match="is a raw one, which has no backing file"):
        OpenDrive(Drive(str(top), read_only=True, format="qcow2", backing=(*named, Backing("x"))))
    for path in (top, middle, raw):  # nobody has left one locked
        RawFile(str(path), writable=True).close()


def qemu_io(image: Path, *commands: str) -> None:
    import subprocess

    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, str(image)], check=True, capture_output=True, timeout=60)


@NEEDS_QEMU_IMG
def test_the_small_images_are_right(tmp_path: Path) -> None:
    """The images of the tests below are what qemu-img takes for such."""
    behind = bytes(range(256)) * 100
    (tmp_path / "behind").write_bytes(behind)
    for version in (2, 3):
        for bits, backing in ((9, b""), (12, b""), (9, b"behind")):
            (tmp_path / "image").write_bytes(small_image(version, bits, backing))
            qemu_img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "image", tmp_path / "flat")
            assert (tmp_path / "flat").read_bytes() == small_content(version, bits, behind if backing else b"")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_small_images(tmp_path: Path, version: int, bits: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(small_image(version, bits))
    with Qcow2File(str(path)) as file:
        check_reads(file, small_content(version, bits))
    behind = tmp_path / "behind"
    behind.write_bytes(Random(7).randbytes(99 << bits))
    path.write_bytes(small_image(version, bits, b"/etc/passwd"))
    with Qcow2File(str(path), RawFile(str(behind), writable=False)) as file:
        check_reads(file, small_content(version, bits, behind.read_bytes()))


def test_what_the_guest_writes_is_in_an_overlay(tmp_path: Path) -> None:
    path, overlay = tmp_path / "image", tmp_path / "overlay"
    path.write_bytes(small_image())
    before = small_content()
    drive = Drive(str(path), format="qcow2", overlay=str(overlay))
    for _ in range(2):  # the second time from the overlay
        opened = OpenDrive(drive)
        assert isinstance(opened.medium, OverlaidMedium)
        opened.medium.write(5 * 512, b"new" * 512)
        opened.medium.flush()
        assert opened.medium.read(0, len(before)) == before[: 5 * 512] + b"new" * 512 + before[8 * 512 :]
        opened.close()
    assert path.read_bytes() == small_image()


def changed(at: int, form: str, value: int) -> bytes:
    data = bytearray(small_image())
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * 9000, "is no qcow2 image"),
        (b"QFI\xfb", "is a qcow2 image of version 0"),
        (changed(4, ">I", 1), "version 1: only versions 2 and 3"),
        (changed(20, ">I", 8), r"has clusters of 2\^8 bytes"),
        (changed(20, ">I", 22), r"has clusters of 2\^22 bytes"),
        (changed(20, ">I", 0xFFFFFFFF), "clusters of 2"),
        (changed(24, ">Q", 0), "has a disk of 0 bytes"),
        (changed(24, ">Q", (1 << 64) - 1), "has a disk of"),
        (changed(24, ">Q", 1 << 61), "has a table of 3 entries for a disk of"),
        (changed(32, ">I", 1), "is encrypted, which is not supported"),
        (changed(36, ">I", 2), "has a table of 2 entries"),
        (changed(40, ">Q", 0), "has a table at 0x0"),
        (changed(40, ">Q", 513), "has a table at 0x201"),
        (changed(40, ">Q", 1 << 63), "has a table at 0x8000000000000000"),
        (changed(72, ">Q", 2), "is marked as damaged"),
        (changed(72, ">Q", 4), "has its data in another file"),
        (changed(72, ">Q", 8), "compression of kind 0"),
        (changed(72, ">Q", 16), "has extended table entries"),
        (changed(72, ">Q", 1 << 40), "has features that are not known"),
        (changed(100, ">I", 72), "a header of 72 bytes"),
        (changed(16, ">I", 5)[:8] + b"\0\0\0\0\0\0\x70\0" + changed(16, ">I", 1 << 20)[16:], "a name of 1048576 bytes"),
        (small_image(backing=b"/etc/passwd"), r"calls '/etc/passwd'\. Names in images are not followed"),
        (small_image(backing=b"\xff\x1b[2J"), r"calls '\ufffd\\x1b\[2J'"),
    ],
)
def test_a_header_that_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(DiskError, match=message) as raised:
        Qcow2File(str(path))
    assert "\n" not in str(raised.value)
    RawFile(str(path), writable=True).close()  # it is not locked any more


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (512, 1 << 50, "the table of cluster 0 is at 0x4000000000000, behind the end"),
        (1024, 0x7000000 | 1 << 63, "cluster 0 is at 0x7000000, behind the end"),
        (1024 + 8, 1 << 62 | 0x7000000, "cluster 1 is at 0x7000000, behind the end"),
        (1024 + 8, 1 << 62 | 0x20, "cluster 1 cannot be decompressed"),
    ],
)
def test_a_place_that_is_damaged(tmp_path: Path, at: int, value: int, message: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(changed(at, ">Q", value))
    with Qcow2File(str(path)) as file:
        with pytest.raises(DamagedImage, match=message):
            file.read(0, 4096)
        assert file.read(64 * 512, 512) == small_content()[64 * 512 : 65 * 512]


def test_tables_that_are_the_tables_themselves(tmp_path: Path) -> None:
    """There is no loop to get into: a table is looked up twice, whatever it is."""
    path = tmp_path / "image"
    data = bytearray(small_image())
    struct.pack_into(">Q", data, 512, 512)  # the first table is its own second table
    path.write_bytes(data)
    with Qcow2File(str(path)) as file:
        assert file.read(0, 512) == data[512:1024]


def test_a_huge_disk_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data = bytearray(small_image(3, 21))
    struct.pack_into(">QII", data, 24, 1 << 50, 0, 1 << 22)  # as large as it can be with so long a table
    path.write_bytes(data)
    os.truncate(path, 64 << 20)
    tracemalloc.start()
    with Qcow2File(str(path)) as file:
        for at in range(0, 1 << 50, 1 << 42):
            try:
                file.read(at, 4096)
            except DamagedImage:
                assert at  # the first table is not so long
    assert tracemalloc.get_traced_memory()[1] < 24 << 20
    tracemalloc.stop()
    with pytest.raises(DiskError, match="too large for an overlay"):
        OpenDrive(Drive(str(path), format="qcow2", overlay=str(tmp_path / "overlay")))


def test_a_bomb_is_a_cluster_at_most(tmp_path: Path) -> None:
    """Compressed data that would be a gigabyte."""
    import zlib

    path = tmp_path / "image"
    data = bytearray(small_image(3, 16))
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = packer.compress(bytes(1 << 25)) + packer.flush()
    struct.pack_into(">Q", data, 2 << 16, 1 << 62 | 127 << 54 | len(data))
    path.write_bytes(data + bomb)
    tracemalloc.start()
    with Qcow2File(str(path)) as file:
        assert file.read(0, 1 << 16) == bytes(1 << 16)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("part", range(4))
def test_mutated_images_do_no_harm(tmp_path: Path, part: int) -> None:
    rounds = 2500 if LONG else 100
    for seed in range(part * 1_000_000, part * 1_000_000 + rounds):
        mutate_and_read(tmp_path / "image", seed)


def mutate_and_read(path: Path, seed: int) -> None:
    """Change an image at random, cut it, and read it: it has errors, and the rest can still be read."""
    random = Random(seed)
    version, bits = random.choice((2, 3)), random.choice((9, 9, 12))
    data = bytearray(small_image(version, bits, b"name" if random.random() < 0.1 else b""))
    places = ((0, 112), (0, 112), (1 << bits, 40), (2 << bits, 130 * 8), (0, len(data)))
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        start, size = random.choice(places)
        at = start + random.randrange(size)
        match random.randrange(4):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                at &= ~7
                number = random.choice((0, 1, len(data), len(data) - 1, 1 << 62, 1 << 63, random.getrandbits(64)))
                data[at : at + 8] = number.to_bytes(8, "big")
            case 2:
                data[at : at + 4] = random.choice((0, 1, 9, 21, 31, 0xFFFFFFFF)).to_bytes(4, "big")
            case _:
                data[at] = random.randrange(256)
    if random.random() < 0.1:
        del data[random.randrange(1, len(data)) :]
    path.write_bytes(data)
    try:
        file = Qcow2File(str(path))
    except DiskError as error:
        assert "\n" not in str(error)
        return
    with file:
        assert 0 < file.size <= 1 << 62
        for at in (0, file.size - 1, *(random.randrange(file.size) for _ in range(20))):
            size = random.choice((1, 512, 4096, 40_000))
            try:
                assert len(file.read(at, size)) == size
            except DamagedImage as error:
                assert "\n" not in str(error)
