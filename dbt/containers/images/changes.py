"""Lines of a Dockerfile that change what an image says of its containers, as commit and import take them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dbt.containers.images.errors import BadConfig

_LINE: Final = re.compile(r"\s*(\w+)\s*(.*?)\s*", re.DOTALL)
_SHELL: Final = ["/bin/sh", "-c"]


def apply_changes(config: Mapping[str, Any], lines: Iterable[str]) -> dict[str, Any]:
    """Return the settings of an image, by docker's names, with changes. Raise BadConfig for a line that is wrong."""
    found = dict(config)
    for text in lines:
        for line in filter(str.strip, text.splitlines()):
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadConfig(f"{line!r} is no instruction")
            _apply(found, match[1].upper(), match[2])
    return found


def _apply(config: dict[str, Any], name: str, rest: str) -> None:
    if not rest:
        raise BadConfig(f"{name} requires at least one argument")
    match name:
        case "CMD":
            config["Cmd"] = _command(rest, config)
        case "ENTRYPOINT":
            config["Entrypoint"] = _command(rest, config)
        case "ENV":
            pairs = _pairs(name, rest)
            kept = [one for one in config.get("Env") or [] if one.partition("=")[0] not in pairs]
            config["Env"] = kept + [f"{key}={value}" for key, value in pairs.items()]
        case "LABEL":
            config["Labels"] = {**(config.get("Labels") or {}), **_pairs(name, rest)}
        case "EXPOSE":
            ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in rest.split()}
            config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
        case "VOLUME":
            config["Volumes"] = {**(config.get("Volumes") or {}), **{one: {} for one in _list(rest) or rest.split()}}
        case "USER":
            config["User"] = rest
        case "WORKDIR":
            before = "" if rest.startswith("/") else f"{config.get('WorkingDir') or ''}/"
            config["WorkingDir"] = before + rest
        case "STOPSIGNAL":
            config["StopSignal"] = rest
        case "ONBUILD":
            config["OnBuild"] = [*(config.get("OnBuild") or []), rest]
        case _:
            raise BadConfig(f"{name.lower()} is not a valid change command")


def _list(rest: str) -> list[str] | None:
    """Return the list in JSON that an argument is, or None if it is none."""
    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _command(rest: str, config: Mapping[str, Any]) -> list[str]:
    words = _list(rest)
    return [*(config.get("Shell") or _SHELL), rest] if words is None else words


def _pairs(name: str, rest: str) -> dict[str, str]:
    """Return what KEY=VALUE pairs say, or one pair as KEY VALUE."""
    key, space, value = rest.partition(" ")
    if "=" not in key:
        if not space:
            raise BadConfig(f"{name} must have two arguments")
        return {key: value.strip()}
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BadConfig(f"{name}: {error}") from None
    for word in words:
        if "=" not in word:
            raise BadConfig(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
    return dict(word.split("=", 1) for word in words)
