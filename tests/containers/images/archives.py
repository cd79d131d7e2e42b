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
