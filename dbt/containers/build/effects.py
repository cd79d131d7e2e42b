"""What instructions change in the configuration of an image, and how that stands in its history."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable
from typing import Any, Final

from dbt.containers.build.dockerfile import Instruction
from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.stages import health_check
from dbt.containers.build.state import State

_PORT = re.compile(r"(?:\[?[0-9a-fA-F.:]*\]?:)?(?:[^:/]*:)?(\d+)(?:-(\d+))?(?:/([a-zA-Z]+))?")
_LAST_PORT: Final = 65535
_LAST_SIGNAL: Final = 64

#: Gives the value of a word.
Expand = Callable[[str], str]


def set_labels(state: State, instruction: Instruction, expand: Expand) -> str:
    labels = dict(state.config.get("Labels") or {})
    text = "LABEL"
    for name, value in instruction.pairs:
        key, found = expand(name), expand(value or "")
        labels[key] = found
        text += f" {key}={found}"
    state.config["Labels"] = labels
    return text


def set_variables(state: State, instruction: Instruction, expand: Expand) -> str:
    text = "ENV"
    pairs = [(expand(name), expand(value or "")) for name, value in instruction.pairs]
    for name, value in pairs:
        state.set_variable(name, value)
        text += f" {name}={value}"
    return text


def set_ports(state: State, instruction: Instruction, expand: Expand) -> str:
    words = sorted(word for one in instruction.words for word in expand(one).split())
    ports = dict(state.config.get("ExposedPorts") or {})
    for word in words:
        ports |= {port: {} for port in _ports(word)}
    state.config["ExposedPorts"] = ports
    return "EXPOSE " + " ".join(words)


def _ports(word: str) -> list[str]:
    found = _PORT.fullmatch(word)
    if found is None:
        raise BuildFailed(f"Invalid containerPort: {word}")
    first, last = int(found[1]), int(found[2] or found[1])
    protocol = (found[3] or "tcp").lower()
    if last > _LAST_PORT or first > last:
        raise BuildFailed(f"Invalid containerPort: {found[1] if first > _LAST_PORT else word}")
    if protocol not in ("tcp", "udp", "sctp"):
        raise BuildFailed(f"Invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def set_user(state: State, instruction: Instruction, expand: Expand) -> str:
    state.config["User"] = expand(instruction.rest)
    return f"USER {state.config['User']}"


def set_volumes(state: State, instruction: Instruction, expand: Expand) -> str:
    words = [expand(word).strip() for word in instruction.words]
    if not all(words):
        raise BuildFailed("VOLUME specified can not be an empty string")
    state.config["Volumes"] = dict(state.config.get("Volumes") or {}) | {word: {} for word in words}
    return f"VOLUME [{' '.join(words)}]"


def set_signal(state: State, instruction: Instruction, expand: Expand) -> str:
    text = expand(instruction.rest)
    name = text.upper().removeprefix("SIG")
    is_number = text.isdigit() and 0 < int(text) <= _LAST_SIGNAL
    if not is_number and f"SIG{name}" not in signal.Signals.__members__:
        raise BuildFailed(f"Invalid signal: {text}")
    state.config["StopSignal"] = text
    return f"STOPSIGNAL {text}"


def set_shell(state: State, instruction: Instruction, expand: Expand) -> str:
    state.config["Shell"] = list(instruction.words)
    return f"SHELL [{' '.join(instruction.words)}]"


def set_maintainer(state: State, instruction: Instruction, expand: Expand) -> str:
    state.author = instruction.rest
    return f"MAINTAINER {instruction.rest}"


def command_of(state: State, instruction: Instruction) -> list[str]:
    """Return what an instruction executes: words, or a line for the shell."""
    return list(instruction.words) if instruction.is_json else [*state.shell, *instruction.words]


def set_command(state: State, instruction: Instruction, expand: Expand) -> str:
    command = command_of(state, instruction)
    state.config["Cmd"] = command
    state.has_command = bool(instruction.words)
    return f"CMD {_listed(command)}"


def set_entrypoint(state: State, instruction: Instruction, expand: Expand) -> str:
    command = command_of(state, instruction) if instruction.words else []
    state.config["Entrypoint"] = command
    if not state.has_command:
        state.config["Cmd"] = None
    return f"ENTRYPOINT {_listed(command)}"


def _listed(words: list[str]) -> str:
    """Return words as Go writes them with %q."""
    quoted = (
        word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") for word in words
    )
    return "[" + " ".join(f'"{word}"' for word in quoted) + "]"


def set_health(state: State, instruction: Instruction, expand: Expand) -> str:
    found = health_check(instruction)
    old = state.config.get("Healthcheck") or {}
    state.config["Healthcheck"] = {**old, **found}
    times = " ".join(f'"{_duration(found.get(name, 0))}"' for name in ("Interval", "Timeout", "StartPeriod"))
    test: Any = found["Test"]
    retries = found.get("Retries", 0)
    assert isinstance(retries, int)
    return f"HEALTHCHECK &{{{_listed(test)} {times} '\\x{retries:02x}'}}"


def _duration(nanoseconds: object) -> str:
    """Return a time as Go writes it."""
    assert isinstance(nanoseconds, int)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        return f"{nanoseconds / 10**6:g}ms"
    minutes, seconds = divmod(nanoseconds / 10**9, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h" if hours else ""
    return text + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"


def add_trigger(state: State, instruction: Instruction, expand: Expand) -> str:
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or []), instruction.rest]
    return f"ONBUILD {instruction.rest}"


def working_folder(state: State, instruction: Instruction, expand: Expand) -> str:
    """Return the directory that WORKDIR means."""
    folder = expand(instruction.rest)
    if not folder:
        raise BuildFailed("cannot normalize nothing")
    found = posixpath.normpath(posixpath.join("/", state.config.get("WorkingDir") or "/", folder))
    return "/" + found.lstrip("/")


#: What changes nothing but the configuration.
EFFECTS: Final[dict[str, Callable[[State, Instruction, Expand], str]]] = {
    "label": set_labels,
    "env": set_variables,
    "expose": set_ports,
    "user": set_user,
    "volume": set_volumes,
    "stopsignal": set_signal,
    "shell": set_shell,
    "maintainer": set_maintainer,
    "cmd": set_command,
    "entrypoint": set_entrypoint,
    "healthcheck": set_health,
    "onbuild": add_trigger,
}
