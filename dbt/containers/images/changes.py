"""Instructions that change with what a container starts, as ``docker commit --change 'CMD ["sh"]'`` has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dbt.containers.images.errors import BadConfig

_SHELL: Final = ["/bin/sh", "-c"]
_PORT: Final = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:/(?:tcp|udp|sctp))?")
_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_TIMES: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_Config = dict[str, Any]


def apply_changes(run_config: Mapping[str, Any], changes: Sequence[str]) -> _Config:
    """Return a configuration, under docker's names, with the changes of some instructions. Raise BadConfig."""
    config = {name: value.copy() if isinstance(value, dict | list) else value for name, value in run_config.items()}
    for change in (line.strip() for text in changes for line in text.splitlines() or [""] if line.strip() or not text):
        name, _, rest = change.partition(" ")
        instruction = _INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise BadConfig(f"{name.lower() or 'an empty line'} is not a valid change command")
        if not rest.strip():
            raise BadConfig(f"{name.upper()} requires at least one argument")
        instruction(config, rest.strip())
    return config


def split_words(text: str) -> list[str]:
    """Return the words of an instruction, without quotes and backslashes. Raise BadConfig for a quote without end."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    characters = iter(text)
    for one in characters:
        if one == "\\" and quote != "'":
            word = [*(word or ()), next(characters, "")]
        elif quote:
            word, quote = ((word or []), "") if one == quote else ([*(word or ()), one], quote)
        elif one in "\"'":
            word, quote = word or [], one
        elif one.isspace():
            words += ["".join(word)] if word is not None else []
            word = None
        else:
            word = [*(word or ()), one]
    if quote:
        raise BadConfig(f"unexpected end of statement while looking for matching {quote}")
    return words + (["".join(word)] if word is not None else [])


def json_words(text: str) -> list[str] | None:
    """Return the words of an instruction in its JSON form, or None if it has another form."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _command(config: _Config, text: str) -> list[str]:
    words = json_words(text)
    return words if words is not None else [*(config.get("Shell") or _SHELL), text]


def _cmd(config: _Config, text: str) -> None:
    config["Cmd"] = _command(config, text)


def _entrypoint(config: _Config, text: str) -> None:
    config["Entrypoint"] = _command(config, text)


def _pairs(name: str, text: str) -> list[tuple[str, str]]:
    """Return names and values: ``a=b c=d``, or in the old form one name and the rest of the line."""
    words = split_words(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise BadConfig(f"{name} must have two arguments")
        return [(key, value.strip())]
    for word in words:
        if "=" not in word or word.startswith("="):
            raise BadConfig(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _env(config: _Config, text: str) -> None:
    values = dict(word.partition("=")[::2] for word in config.get("Env") or ())
    values.update(_pairs("ENV", text))
    config["Env"] = [f"{key}={value}" for key, value in values.items()]


def _label(config: _Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", text))}


def _expose(config: _Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in split_words(text):
        if not _PORT.fullmatch(word):
            raise BadConfig(f"invalid containerPort: {word}")
        numbers, _, protocol = word.partition("/")
        first, _, last = numbers.partition("-")
        for port in range(int(first), int(last or first) + 1):
            if not 0 < port < 1 << 16:
                raise BadConfig(f"invalid containerPort: {word}")
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: _Config, text: str) -> None:
    words = json_words(text)
    found = words if words is not None else split_words(text)
    if not all(found):
        raise BadConfig("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{word: {} for word in found}}


def _user(config: _Config, text: str) -> None:
    config["User"] = text


def _workdir(config: _Config, text: str) -> None:
    before = config.get("WorkingDir") or "/"
    path = text if text.startswith("/") else f"{before}/{text}"
    parts: list[str] = []
    for part in path.split("/"):
        parts = parts[:-1] if part == ".." else parts if part in ("", ".") else [*parts, part]
    config["WorkingDir"] = "/" + "/".join(parts)


def _onbuild(config: _Config, text: str) -> None:
    trigger = text.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise BadConfig("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise BadConfig(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _stopsignal(config: _Config, text: str) -> None:
    config["StopSignal"] = text


def _shell(config: _Config, text: str) -> None:
    words = json_words(text)
    if not words:
        raise BadConfig("SHELL requires the arguments to be in JSON form")
    config["Shell"] = words


def _healthcheck(config: _Config, text: str) -> None:
    found: dict[str, Any] = {}
    while option := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        if option[1] == "retries" and option[2].isdecimal():
            found["Retries"] = int(option[2])
        elif option[1] in _TIMES:
            found[_TIMES[option[1]]] = _nanoseconds(option[2])
        else:
            raise BadConfig(f"Unknown flag: {option[1]}")
        text = text[option.end() :]
    kind, _, rest = text.partition(" ")
    match kind.upper():
        case "NONE":
            found["Test"] = ["NONE"]
        case "CMD" if rest.strip():
            words = json_words(rest.strip())
            found["Test"] = ["CMD-SHELL", rest.strip()] if words is None else ["CMD", *words]
        case "CMD":
            raise BadConfig("Missing command after HEALTHCHECK CMD")
        case _:
            raise BadConfig(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    config["Healthcheck"] = found


def _nanoseconds(text: str) -> int:
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise BadConfig(f'time: invalid duration "{text}"')
    return int(sum(float(value) * _NS[unit] for value, unit in _DURATION.findall(text)))


_INSTRUCTIONS: Final[dict[str, Callable[[_Config, str], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
