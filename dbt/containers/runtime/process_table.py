"""What ps(1) says of a container's processes, from what its guest's /proc says of all of the guest."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dbt.containers.runtime.jobs import sized
from dbt.containers.runtime.spec import RuntimeFailure

_TICKS: Final = 100  # of the guest's kernel, in a second
_PID: Final = struct.Struct("<I")
_STAT_FIELDS: Final = 24


class GuestProcess(NamedTuple):
    """A process of a guest. ``spaces`` is in how many PID namespaces it is, ``ticks`` its CPU time."""

    pid: int
    parent: int
    state: str
    terminal: int
    ticks: int
    started: int
    threads: int
    size: int
    resident: int
    user: int
    group: int
    spaces: int
    name: str
    command: str


def processes_of(data: bytes) -> list[GuestProcess]:
    """Return the processes that the job "p" has told. Raise RuntimeFailure for what is no answer."""
    found, at = [], 0
    while at < len(data):
        if len(data) - at < _PID.size:
            raise RuntimeFailure("the container's guest has not answered all of a question")
        pid = _PID.unpack_from(data, at)[0]
        texts = []
        at += _PID.size
        for _ in range(3):
            content, at = sized(data, at)
            texts.append((content or b"").decode("utf-8", "replace"))
        if (process := _process(pid, *texts)) is not None:
            found.append(process)
    return found


def _process(pid: int, stat: str, status: str, command: str) -> GuestProcess | None:
    """Return a process, or None for one that has ended meanwhile."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    lines = {key: value.split() for key, _, value in (line.partition(":") for line in status.splitlines())}
    if len(fields) < _STAT_FIELDS - 2 or not lines.get("Uid") or not lines.get("Gid"):
        return None

    def number(text: str) -> int:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    return GuestProcess(
        pid,
        number(fields[1]),
        fields[0],
        number(fields[4]),
        number(fields[11]) + number(fields[12]),
        number(fields[19]),
        number(fields[17]),
        number(fields[20]),
        number(fields[21]) * 4096,
        number(lines["Uid"][1] if len(lines["Uid"]) > 1 else "0"),
        number(lines["Gid"][1] if len(lines["Gid"]) > 1 else "0"),
        len(lines.get("NSpid", ["0"])),
        name,
        " ".join(command.rstrip("\0").split("\0")) or f"[{name}]",
    )


def _time(one: GuestProcess) -> str:
    seconds = one.ticks // _TICKS
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _user(one: GuestProcess) -> str:
    return "root" if one.user == 0 else str(one.user)


def _terminal(one: GuestProcess) -> str:
    return f"pts/{one.terminal & 0xFF}" if one.terminal >> 8 == 136 else "?"


_COLUMNS: Final[dict[str, tuple[str, Callable[[GuestProcess], str]]]] = {
    "uid": ("UID", lambda one: str(one.user)),
    "user": ("USER", _user),
    "euser": ("EUSER", _user),
    "group": ("GROUP", lambda one: "root" if one.group == 0 else str(one.group)),
    "gid": ("GID", lambda one: str(one.group)),
    "pid": ("PID", lambda one: str(one.pid)),
    "ppid": ("PPID", lambda one: str(one.parent)),
    "c": ("C", lambda one: "0"),
    "stime": ("STIME", lambda one: "00:00"),
    "start": ("START", lambda one: "00:00"),
    "tty": ("TTY", _terminal),
    "tt": ("TT", _terminal),
    "time": ("TIME", _time),
    "cmd": ("CMD", lambda one: one.command),
    "args": ("COMMAND", lambda one: one.command),
    "command": ("COMMAND", lambda one: one.command),
    "comm": ("COMMAND", lambda one: one.name),
    "stat": ("STAT", lambda one: one.state),
    "state": ("S", lambda one: one.state),
    "s": ("S", lambda one: one.state),
    "vsz": ("VSZ", lambda one: str(one.size >> 10)),
    "rss": ("RSS", lambda one: str(one.resident >> 10)),
    "nlwp": ("NLWP", lambda one: str(one.threads)),
    "%cpu": ("%CPU", lambda one: "0.0"),
    "pcpu": ("%CPU", lambda one: "0.0"),
    "%mem": ("%MEM", lambda one: "0.0"),
    "pmem": ("%MEM", lambda one: "0.0"),
}
_FULL: Final = ("uid_name", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_BSD: Final = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command")


def table(processes: Sequence[GuestProcess], ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Return the titles and rows for ps(1) with these options: -ef (as if none are given), aux, and -o LIST. Raise
    RuntimeFailure for others.
    """
    columns = _columns(ps_args)
    return [title for title, _ in columns], [[value(one) for _, value in columns] for one in processes]


def _columns(ps_args: str) -> list[tuple[str, Callable[[GuestProcess], str]]]:
    words = ps_args.split()
    names: list[str] = []
    while words:
        word = words.pop(0)
        if word in ("-o", "o", "-eo", "-axo", "axo"):
            names += (words.pop(0) if words else "").split(",")
        elif word.startswith("-o"):
            names += word[2:].split(",")
        elif word in ("aux", "-aux", "u", "axu"):
            names += _BSD
        elif word not in ("-ef", "-e", "-f", "-A", "ax", "-ax"):
            raise RuntimeFailure(f"{word}: of ps there are the options -ef, aux and -o LIST here")
    found: list[tuple[str, Callable[[GuestProcess], str]]] = []
    for name in names or _FULL:
        key, _, title = name.partition("=")
        if key == "uid_name":
            found.append(("UID", _user))
        elif key.lower() in _COLUMNS:
            column = _COLUMNS[key.lower()]
            found.append((title or column[0], column[1]))
        else:
            raise RuntimeFailure(f'error: unknown user-defined format specifier "{key}"')
    return found
