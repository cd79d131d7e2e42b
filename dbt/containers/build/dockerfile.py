"""Dockerfiles: their lines as instructions, by the grammar of the classic builder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from dbt.containers.build.failures import BadDockerfile
from dbt.containers.build.words import split_words

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_MOST_BYTES: Final = 4 << 20
_FLAGS: Final = {
    "from": ("platform",), "add": ("chown", "chmod"), "copy": ("from", "chown", "chmod"),
    "run": ("mount", "network", "security"), "healthcheck": ("interval", "timeout", "start-period", "retries"),
}  # fmt: skip
NAMES: Final = frozenset(
    ("add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck", "label", "maintainer",
     "onbuild", "run", "shell", "stopsignal", "user", "volume", "workdir")
)  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """An instruction: ``name`` in small letters, ``text`` as it stands there on one line, its flags and the rest.

    ``words`` are those of the rest as the instruction has them: of a JSON array, at white space, or the rest as a
    whole. ``pairs`` are names with values. ``is_json`` tells a JSON array from a shell's command.
    """

    name: str
    text: str
    rest: str
    line: int
    flags: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    is_json: bool = False


@dataclass(frozen=True)
class Dockerfile:
    """What a file says: its instructions, its escape character, and lines that are empty in the middle of one."""

    instructions: tuple[Instruction, ...]
    escape: str = "\\"
    empty_lines: tuple[str, ...] = ()


def parse(document: bytes) -> Dockerfile:
    """Return the instructions of a file. Raise BadDockerfile."""
    if len(document) > _MOST_BYTES:
        raise BadDockerfile(f"failed to parse Dockerfile: it has more than {_MOST_BYTES} bytes")
    lines = document.decode("utf-8-sig", "replace").removesuffix("\n").split("\n")
    escape = _escape(lines)
    found: list[Instruction] = []
    empty: list[str] = []
    at = 0
    while at < len(lines):
        start = at + 1
        line, at = lines[at].rstrip("\r").lstrip(), at + 1
        if not line or line.startswith("#"):
            continue
        has_gap = False
        while (shorter := _continued(line, escape)) is not None and at < len(lines):
            line, more = shorter, lines[at].rstrip("\r")
            at += 1
            while more.lstrip().startswith("#") or not more.strip():
                has_gap = has_gap or not more.strip()
                if at == len(lines):
                    more = ""
                    break
                more, at = lines[at].rstrip("\r"), at + 1
            line += more
        line = line if shorter is None else shorter
        empty += [line] if has_gap else []
        found.append(read_instruction(line, escape, start))
    if not found:
        raise BadDockerfile("failed to parse Dockerfile: file with no instructions")
    return Dockerfile(tuple(found), escape, tuple(empty))


def _escape(lines: list[str]) -> str:
    """Return the escape character that a directive at the beginning chooses."""
    for line in lines:
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape":
            if directive[2] not in ("\\", "`"):
                raise BadDockerfile(f"failed to parse Dockerfile: invalid ESCAPE '{directive[2]}'. Must be ` or \\")
            return directive[2]
    return "\\"


def _continued(line: str, escape: str) -> str | None:
    """Return a line without the character that says that it goes on, or None if it does not."""
    bare = line.rstrip(" \t")
    return bare[: -len(escape)] if bare.endswith(escape) else None


def read_instruction(line: str, escape: str, number: int = 1) -> Instruction:
    """Return the instruction of one line. Raise BadDockerfile."""
    text = line.strip()
    first, _, rest = text.replace("\t", " ", 1).partition(" ") if " " not in text else text.partition(" ")
    name, rest = first.lower(), rest.strip()
    if name not in NAMES:
        raise BadDockerfile(f"dockerfile parse error line {number}: unknown instruction: {first.upper()}")
    given, rest = _flags(rest)
    allowed = _FLAGS.get(name, ())
    for flag in given:
        if flag not in allowed:
            raise BadDockerfile(f"dockerfile parse error line {number}: Unknown flag: {flag}")
    words, pairs, is_json = _arguments(name, rest, escape)
    return Instruction(name, text, rest, number, given, words, pairs, is_json)


def _flags(rest: str) -> tuple[dict[str, str], str]:
    found: dict[str, str] = {}
    while rest.startswith("--"):
        word, _, after = rest.partition(" ")
        if word == "--":
            return found, after.strip()
        name, _, value = word[2:].partition("=")
        found[name] = f"{found[name]},{value}" if name in found else value
        rest = after.strip()
    return found, rest


def _arguments(name: str, rest: str, escape: str) -> tuple[tuple[str, ...], tuple[tuple[str, str | None], ...], bool]:
    match name:
        case "env" | "label":
            return (), _pairs(name, rest, escape), False
        case "arg":
            words = split_words(rest, escape)
            return (
                (),
                tuple((one.partition("=")[0], one.partition("=")[2] if "=" in one else None) for one in words),
                False,
            )
        case "run" | "cmd" | "entrypoint" | "shell" | "add" | "copy" | "volume":
            array = _array(rest)
            if array is not None:
                return tuple(array), (), True
            whole = name in ("run", "cmd", "entrypoint", "shell")
            return ((rest,) if rest else ()) if whole else tuple(rest.split()), (), False
        case "from" | "expose":
            return tuple(rest.split()), (), False
        case _:
            return ((rest,) if rest else ()), (), False


def _pairs(name: str, rest: str, escape: str) -> tuple[tuple[str, str | None], ...]:
    words = split_words(rest, escape)
    if words and "=" not in words[0]:
        parts = rest.split(maxsplit=1)
        if len(parts) < 2:
            raise BadDockerfile(f"failed to parse Dockerfile: {name.upper()} must have two arguments")
        return ((parts[0], parts[1]),)
    for word in words:
        if "=" not in word:
            text = f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            raise BadDockerfile(f"failed to parse Dockerfile: {text}")
    return tuple((word.partition("=")[0], word.partition("=")[2]) for word in words)


def _array(rest: str) -> list[str] | None:
    """Return a JSON array of texts, or None for what is none."""
    if not rest.startswith("["):
        return None
    try:
        found: Any = msgspec.json.decode(rest)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found if all(isinstance(one, str) for one in found) else None
