"""The stages of a Dockerfile, and the check of what its instructions say, before anything is done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.containers.build.dockerfile import Dockerfile, Instruction, read_instruction
from dbt.containers.build.failures import BadDockerfile

_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@dataclass
class Stage:
    """Instructions from a FROM to the next: the image's name, the stage's own, and what is done."""

    source: Instruction
    base: str
    name: str
    platform: str
    steps: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What is to be done: arguments before the first stage, and the stages up to the one that is wanted."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]

    @property
    def count(self) -> int:
        """How many steps there are."""
        return len(self.arguments) + sum(1 + len(stage.steps) for stage in self.stages)


def plan(dockerfile: Dockerfile, target: str = "") -> Plan:
    """Return what is to be done for a stage, or for the last one. Raise BadDockerfile."""
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    for instruction in dockerfile.instructions:
        try:
            check(instruction, dockerfile.escape)
        except BadDockerfile as error:
            raise BadDockerfile(f"dockerfile parse error line {instruction.line}: {error}") from None
        if instruction.name == "from":
            stages.append(_stage(instruction))
        elif stages:
            stages[-1].steps.append(instruction)
        elif instruction.name == "arg":
            arguments.append(instruction)
        else:
            raise BadDockerfile("no build stage in current context")
    if not stages:
        raise BadDockerfile("dockerfile contains no stages to build")
    return Plan(tuple(arguments), tuple(stages[: _last(stages, target)]))


def _last(stages: list[Stage], target: str) -> int:
    if not target:
        return len(stages)
    for number, stage in enumerate(stages):
        if stage.name == target.lower():
            return number + 1
    if target.isdigit() and int(target) < len(stages):
        return int(target) + 1
    raise BadDockerfile(f"failed to reach build target {target} in Dockerfile")


def _stage(instruction: Instruction) -> Stage:
    words = instruction.words
    name = words[2].lower() if len(words) == 3 else ""
    return Stage(instruction, words[0], name, instruction.flags.get("platform", ""))


# -- checks ----------------------------------------------------------------------------------------


def check(instruction: Instruction, escape: str) -> None:
    """Raise BadDockerfile if an instruction has other arguments than it may."""
    found = _CHECKS.get(instruction.name)
    if found is not None:
        found(instruction, escape)


def _check_from(instruction: Instruction, escape: str) -> None:
    words = instruction.words
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise BadDockerfile("FROM requires either one or three arguments")
    if len(words) == 3 and not _NAME.fullmatch(words[2].lower()):
        text = "name can't start with a number or contain symbols"
        raise BadDockerfile(f'invalid name for build stage: "{words[2]}", {text}')


def _check_pairs(instruction: Instruction, escape: str) -> None:
    if not instruction.pairs:
        raise BadDockerfile(f"{instruction.name.upper()} requires at least one argument")
    if any(not name for name, _ in instruction.pairs):
        raise BadDockerfile(f"{instruction.name.upper()} names can not be blank")


def _check_copy(instruction: Instruction, escape: str) -> None:
    name = instruction.name.upper()
    if not instruction.words:
        raise BadDockerfile(f"{name} requires at least two arguments, but no arguments were provided")
    if len(instruction.words) == 1:
        text = "but only one was provided. Destination could not be determined"
        raise BadDockerfile(f"{name} requires at least two arguments, {text}")


def _check_words(instruction: Instruction, escape: str) -> None:
    if not instruction.words and instruction.name in ("expose", "volume"):
        raise BadDockerfile(f"{instruction.name.upper()} requires at least one argument")


def _check_one(instruction: Instruction, escape: str) -> None:
    if not instruction.rest:
        raise BadDockerfile(f"{instruction.name.upper()} requires exactly one argument")


def _check_shell(instruction: Instruction, escape: str) -> None:
    if not instruction.is_json:
        raise BadDockerfile("SHELL requires the arguments to be in JSON form")
    if not instruction.words:
        raise BadDockerfile("SHELL requires at least one argument")


def _check_onbuild(instruction: Instruction, escape: str) -> None:
    if not instruction.rest:
        raise BadDockerfile("ONBUILD requires at least one argument")
    trigger = instruction.rest.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise BadDockerfile("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise BadDockerfile(f"{trigger} isn't allowed as an ONBUILD trigger")
    check(read_instruction(instruction.rest, escape), escape)


def _check_health(instruction: Instruction, escape: str) -> None:
    health_check(instruction)


_CHECKS: Final[dict[str, Callable[[Instruction, str], None]]] = {
    "from": _check_from,
    "env": _check_pairs,
    "label": _check_pairs,
    "arg": _check_pairs,
    "add": _check_copy,
    "copy": _check_copy,
    "expose": _check_words,
    "volume": _check_words,
    "maintainer": _check_one,
    "user": _check_one,
    "workdir": _check_one,
    "stopsignal": _check_one,
    "shell": _check_shell,
    "onbuild": _check_onbuild,
    "healthcheck": _check_health,
}


def health_check(instruction: Instruction) -> dict[str, object]:
    """Return what HEALTHCHECK says, with docker's names. Raise BadDockerfile."""
    kind, _, command = instruction.rest.partition(" ")
    if not kind:
        raise BadDockerfile("HEALTHCHECK requires at least one argument")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise BadDockerfile("HEALTHCHECK NONE takes no arguments")
        return {"Test": ["NONE"]}
    if kind.upper() != "CMD":
        raise BadDockerfile(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    if not command:
        raise BadDockerfile("Missing command after HEALTHCHECK CMD")
    inner = read_instruction(f"CMD {command}", "\\")
    found: dict[str, object] = {"Test": ["CMD", *inner.words] if inner.is_json else ["CMD-SHELL", command]}
    for flag, name in (("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")):
        if value := _nanoseconds(flag, instruction.flags.get(flag, "")):
            found[name] = value
    if retries := instruction.flags.get("retries", ""):
        if not retries.isdigit():
            raise BadDockerfile(f'strconv.ParseInt: parsing "{retries}": invalid syntax')
        if int(retries) < 1:
            raise BadDockerfile(f"--retries must be at least 1 (not {retries})")
        found["Retries"] = int(retries)
    return found


def _nanoseconds(flag: str, text: str) -> int:
    if not text:
        return 0
    if re.fullmatch(r"\d+(?:\.\d*)?", text) and text != "0":
        raise BadDockerfile(f'time: missing unit in duration "{text}"')
    places = list(_DURATION.finditer(text))
    if text != "0" and "".join(found[0] for found in places) != text:
        raise BadDockerfile(f'time: invalid duration "{text}"')
    total = int(sum(float(found[0].removesuffix(found[1])) * _UNITS[found[1]] for found in places))
    if 0 < total < _UNITS["ms"]:
        raise BadDockerfile(f'Interval "{flag}" cannot be less than 1ms')
    return total
