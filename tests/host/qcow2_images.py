"""qcow2 images for tests, made here byte by byte, and by qemu-img where it is installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from random import Random

import pytest

NEEDS_QEMU_IMG = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")


def qemu_img(*arguments: object) -> str:
    """Run qemu-img, and return what it says."""
    done = subprocess.run(["qemu-img", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def some_disk(path: Path, size: int, seed: int = 1) -> bytes:
    """Make a raw disk with random data, data that can be compressed, and holes. Return what it has."""
    random, data = Random(seed), bytearray(size)
    for _ in range(12):
        at, count = random.randrange(size), random.randrange(1, 200_000)
        piece = random.randbytes(count) if random.random() < 0.5 else (b"%d " % at) * (count // 4)
        data[at : at + count] = piece[: size - at]
    del data[size:]
    path.write_bytes(data.ljust(size, b"\0"))
    return path.read_bytes()


def small_image(version: int = 3, bits: int = 9, backing: bytes = b"") -> bytes:
    """Return an image of a disk with 130 clusters of 2^bits bytes. Of each 8, two have data, one is compressed, and one
    is zero (in version 3).
    """
    cluster, per_table = 1 << bits, 1 << bits - 3
    clusters = 130
    tables = -(-clusters // per_table)
    table, first = cluster, 2 * cluster
    place = first + tables * cluster
    entries: list[int] = []
    content = b""
    for number in range(clusters):
        kind = number % 8
        if kind in (0, 5):
            entries.append(1 << 63 | place + len(content))
            content += bytes([number + 1]) * cluster
        elif kind == 1:
            packer = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = packer.compress(b"%3d." % number * (cluster // 4)) + packer.flush()
            entries.append(1 << 62 | place + len(content))
            content += packed.ljust(cluster, b"\xee")
        elif kind == 2 and version == 3:
            entries.append(1)
        else:
            entries.append(0)
    name = 0x70 if backing else 0
    counts = place + -(-len(content) // cluster) * cluster  # an empty table, which nobody needs to read the disk
    content = content.ljust(counts - place, b"\0") + bytes(cluster)
    fields = (b"QFI\xfb", version, name, len(backing), bits, clusters * cluster, 0, tables, table, counts, 1, 0, 0)
    header = struct.pack(">4sIQIIQIIQQIIQ", *fields)
    if version == 3:
        header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    header = header.ljust(0x70, b"\0") + backing
    first_table = b"".join(struct.pack(">Q", 1 << 63 | first + number * cluster) for number in range(tables))
    second = b"".join(struct.pack(">Q", entry) for entry in entries).ljust(tables * cluster, b"\0")
    return header.ljust(cluster, b"\0") + first_table.ljust(cluster, b"\0") + second + content


def small_content(version: int = 3, bits: int = 9, behind: bytes = b"") -> bytes:
    """Return what is on the disk of :func:`small_image`, with ``behind`` as its backing file."""
    cluster = 1 << bits
    found = []
    for number in range(130):
        match number % 8:
            case 0 | 5:
                found.append(bytes([number + 1]) * cluster)
            case 1:
                found.append(b"%3d." % number * (cluster // 4))
            case 2 if version == 3:
                found.append(bytes(cluster))
            case _:
                found.append(behind[number * cluster : (number + 1) * cluster].ljust(cluster, b"\0"))
    return b"".join(found)
