"""Commands for programs of Debian armel (``debian_commands.txt``), and the files that they find."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_TABLE = Path(__file__).with_name("debian_commands.txt")
#: What the programs answered under qemu-arm.
ANSWERS = Path(__file__).with_name("debian_answers.json")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/", "TERM": "dumb"}
#: How both say which signal has ended a program.
_ENDED = re.compile(rb"^(?:dbt: the program was ended by|qemu: uncaught target signal) .*\n", re.MULTILINE)
_MOST_KEPT = 1500
_DATE = 1_500_000_000
_RANDOM = random.Random(7)
_TEXT = (
    "The quick brown fox jumps over the lazy dog, while the cat    sleeps near\tthe warm stove.\n"
    "A translator reads the words of one machine and writes those of another one; the rest is patience.\n"
) * 40
_FILES = Path(__file__).with_name("debian_files")
#: The files in the directory where commands begin, besides those of debian_files.
_MADE = {
    "text.txt": _TEXT.encode(),
    "binary": _RANDOM.randbytes(5000),
    "binary2": _RANDOM.randbytes(5000),
    "code.bin": bytes.fromhex("5589e583ec108b4508c3"),
}


class Command(NamedTuple):
    """A command: its words, and what it reads."""

    line: str
    words: tuple[str, ...]
    stdin: str | None = None


def commands() -> list[Command]:
    """Return the commands of the table."""
    found = []
    for line in _TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        kind, _, rest = line.partition(" ")
        if kind == "sh":
            found.append(Command(line, ("bash", "-c", rest)))
            continue
        rest, _, stdin = rest.partition(" < ")
        found.append(Command(line, tuple(_words(rest)), stdin or None))
    return found


def _words(text: str) -> list[str]:
    """Return words that blanks divide, unless a backslash is in front of them. Other backslashes stay."""
    return [word.replace("\0", " ") for word in text.replace("\\ ", "\0").split(" ")]


def write_files(folder: Path) -> None:
    """Write the files that commands find."""
    shutil.copytree(_FILES, folder, dirs_exist_ok=True)
    for name, content in _MADE.items():
        (folder / name).write_bytes(content)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (_DATE, _DATE))
    (folder / "link").symlink_to("words.txt")


def answer_of(done: subprocess.CompletedProcess[bytes], folder: str) -> dict[str, object]:
    """Return what a command answered: its status, as a shell has it, and its output, or the hash of much output."""
    streams = {}
    for name, found in (("output", done.stdout), ("errors", _ENDED.sub(b"", done.stderr))):
        octets = found.replace(folder.encode(), b"/here")
        if len(octets) > _MOST_KEPT:
            streams[name] = f"{len(octets)} bytes with sha256 {hashlib.sha256(octets).hexdigest()}"
        elif octets:
            streams[name] = octets.decode("utf-8", "backslashreplace")
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return {"status": status, **streams}
