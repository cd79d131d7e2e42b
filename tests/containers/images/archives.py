"""Tar archives for tests, in memory. What is hostile has to be made by hand, because tarfile does not."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return an entry. ``fields`` are those of :class:`tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644, 1000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def files(**contents: bytes) -> bytes:
    """Return an archive of files in its root."""
    return archive(member(name, data=data) for name, data in contents.items())


def diff_id(layer: bytes) -> str:
    return f"sha256:{hashlib.sha256(layer).hexdigest()}"


def config(*layers: bytes, **fields: Any) -> bytes:
    """Return the configuration of an image of these layers."""
    document = {
        "architecture": "arm",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(map(diff_id, layers))},
    }
    return json.dumps({**document, **fields}).encode()


def summed(block: bytes | bytearray) -> bytes:
    """Return a header with the right checksum."""
    copy = bytearray(block)
    copy[148:156] = b" " * 8
    copy[148:156] = b"%06o\0 " % sum(copy)
    return bytes(copy)


def raw(name: bytes = b"file", size: bytes = b"00000000000", kind: bytes = b"0", **fields: bytes) -> bytes:
    """Return a header with its checksum. ``fields`` replace bytes at named offsets."""
    offsets = {"mode": 100, "uid": 108, "gid": 116, "mtime": 136, "link": 157, "magic": 257, "major": 329, "rest": 386}
    block = bytearray(512)
    block[: len(name)] = name
    for at, value in ((100, b"0000644"), (108, b"0000000"), (116, b"0000000"), (136, b"00000000000")):
        block[at : at + len(value)] = value
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for field, value in fields.items():
        block[offsets[field] : offsets[field] + len(value)] = value
    return summed(block)


def pax(data: bytes) -> bytes:
    return raw(b"pax", b"%011o" % len(data), b"x") + data + bytes(-len(data) % 512) + raw()


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size += 1
    return str(size).encode() + body


#: Two layers that are put on each other.
LOW = archive(
    [
        member("etc", tarfile.DIRTYPE),
        member("etc/passwd", data=b"root"),
        member("etc/gone", data=b"x"),
        member("gone", tarfile.DIRTYPE),
        member("gone/file"),
        member("opaque", tarfile.DIRTYPE),
        member("opaque/low"),
        member("became", tarfile.DIRTYPE),
        member("became/low"),
        member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        member("usr", tarfile.DIRTYPE),
        member("usr/lib", tarfile.DIRTYPE),
        member("usr/lib/low", data=b"low"),
        member("out", tarfile.SYMTYPE, linkname="../../../../etc"),
        member("loop", tarfile.SYMTYPE, linkname="/loop"),
    ]
)
HIGH = archive(
    [
        member("etc", tarfile.DIRTYPE, mode=0o700),
        member("etc/new", data=b"n" * 5000, uid=7),
        member("etc/.wh.gone"),
        member(".wh.gone"),
        member("opaque", tarfile.DIRTYPE),
        member("opaque/.wh..wh..opq"),
        member("opaque/high"),
        member("became", data=b"a file"),
        member("usr/lib/high", data=b"high"),
        member("absolute", tarfile.SYMTYPE, linkname="/lib/low"),
        member("pair", tarfile.LNKTYPE, linkname="etc/new"),
    ]
)
