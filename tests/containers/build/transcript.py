"""What a build says, as text that does not depend on identifiers and times."""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.containers.build.cases import Case

EXPECTED = Path(__file__).parent / "expected"
_IDS = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b")
#: What images have of their own, besides those things that differ between architectures and storage drivers.
_CONFIG = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal",
           "User", "Volumes", "WorkingDir")  # fmt: skip


def context_of(case: Case) -> bytes:
    """Return the context of a case as docker's command sends it."""
    out = io.BytesIO()
    files = ({"Dockerfile": case.dockerfile} if case.dockerfile else {}) | case.files
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted(
            {f"{'/'.join(path.split('/')[:n])}/" for path in files for n in range(1, path.count("/") + 1)}
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, text in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as inner:
            entry = tarfile.TarInfo("in/side")
            entry.size = 2
            inner.addfile(entry, io.BytesIO(b"hi"))
        if "packed.tar" in case.dockerfile:
            entry = tarfile.TarInfo("packed.tar")
            entry.size = len(packed.getvalue())
            tar.addfile(entry, io.BytesIO(packed.getvalue()))
    return out.getvalue()


def listed(path: str, mode: int, owner: tuple[int, int], size: int, link: str) -> str:
    """Return a line for a file of an image. The size of a directory means nothing."""
    text = f"{stat.filemode(mode)} {owner[0]}:{owner[1]} {size if stat.S_ISREG(mode) else 0} /{path}"
    return f"{text} -> {link}" if link else text


def masked(text: str) -> str:
    """Give identifiers numbers, in the order in which they come."""
    known: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return known.setdefault(found[0][:12], f"ID{len(known) + 1}")

    return _IDS.sub(number, text)


def shown(
    messages: Iterable[dict[str, Any]],
    failure: str,
    image: dict[str, Any],
    history: list[dict[str, Any]],
    files: Iterable[str] = (),
) -> str:
    """Return what was said, the failure if there was one, what the image is, and the files that it has of its own."""
    lines = []
    text = ""
    for message in messages:
        if "stream" in message:
            text += message["stream"]
        else:
            lines += [text] if text else []
            text = ""
            lines.append(json.dumps(message) + "\n")
    lines += [text] if text else []
    if failure:
        lines.append(f"HTTP {failure}\n")
    if image:
        config = image["Config"]
        lines += [f"{name}: {json.dumps(config.get(name), sort_keys=True)}\n" for name in _CONFIG if config.get(name)]
        lines.append(f"Author: {image['Author']}\n" if image.get("Author") else "")
        lines += [f"history: {row['CreatedBy']} {row['Comment']}".rstrip() + "\n" for row in history[:-1]]
        lines.append(f"layers: {len(image['RootFS'].get('Layers') or [])}\n")
    lines += [f"{file}\n" for file in sorted(files)]
    return masked("".join(lines)) + "----\n"
