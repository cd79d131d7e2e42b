"""The few lines of QEMU's monitor for people that tools send by ``human-monitor-command``, and what it says to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dbt.qmp.errors import QmpError
from dbt.qmp.queries import UUID, disks_in_words, registers_in_words, version

if TYPE_CHECKING:
    from dbt.qmp.commands import Control


class _Line(NamedTuple):
    """What a line does, and returns as text. ``help`` is said by ``help``."""

    run: Callable[[Control], str | None]
    help: str


def _version(control: Control) -> str:
    found = version()
    number = ".".join(str(found["qemu"][part]) for part in ("major", "minor", "micro"))
    return f"{number}{found['package']}\n"


def _status(control: Control) -> str:
    status = control.status
    return f"VM status: {'running' if status == 'running' else 'paused'}" + (
        "\n" if status in ("running", "paused") else f" ({status})\n"
    )


_INFO: Mapping[str, _Line] = {
    "block": _Line(lambda control: disks_in_words(control.machine), "show info of all block devices"),
    "kvm": _Line(lambda control: "kvm support: not compiled\n", "show KVM information"),
    "name": _Line(lambda control: "", "show the current VM name"),
    "registers": _Line(lambda control: registers_in_words(control.machine), "show the cpu registers"),
    "status": _Line(_status, "show the current VM status (running|paused)"),
    "uuid": _Line(lambda control: f"{UUID}\n", "show the current VM UUID"),
    "version": _Line(_version, "show the version of QEMU"),
}
_COMMANDS: Mapping[str, _Line] = {
    "cont|c": _Line(lambda control: control.proceed(), "resume emulation"),
    "quit|q": _Line(lambda control: control.quit(), "quit the emulator"),
    "stop|s": _Line(lambda control: control.pause(), "stop emulation"),
    "system_powerdown": _Line(lambda control: control.press_power_key(), "send system power down event"),
    "system_reset": _Line(lambda control: control.reset(), "reset the system"),
}
_BY_NAME: Mapping[str, _Line] = {name: line for names, line in _COMMANDS.items() for name in names.split("|")}


def answer(control: Control, line: str) -> str:
    """Do a line, and return the text that it writes, whose lines end as on a terminal."""
    return _answer(control, line).replace("\n", "\r\n")


def _answer(control: Control, line: str) -> str:
    words = line.split()
    if not words:
        return ""
    if words[0] in ("help", "?") or words == ["info"]:
        return _help(words)
    path, rest = (words[:2], words[2:]) if words[0] == "info" else (words[:1], words[1:])
    found = _INFO.get(path[1]) if len(path) > 1 else _BY_NAME.get(path[0])
    if found is None:
        return f"unknown command: '{' '.join(path)[:100]}'\n"
    if rest:
        full = " ".join(path)
        return f'{path[-1]}: extraneous characters at the end of line\nTry "help {full}" for more information\n'
    try:
        return found.run(control) or ""
    except QmpError as error:
        return f"Error: {error}\n"


def _help(words: list[str]) -> str:
    """Return what there is, or of what is there that which was asked for."""
    lines = {f"info {name}": line.help for name, line in _INFO.items()}
    if words[0] != "info":
        lines.update((name, line.help) for name, line in _COMMANDS.items())
    wanted = " ".join(words[1:]) if words[0] != "info" else ""
    return "".join(
        f"{name}  -- {text}\n"
        for name, text in sorted(lines.items())
        if not wanted or name == wanted or wanted in name.split("|") or (wanted == "info" and name.startswith("info "))
    )
