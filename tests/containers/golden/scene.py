"""Scenes: files of commands and requests, which any engine is asked, and the transcript of what it answers.

A line of a scene is one of these; it goes on in the next line after a backslash.

    $ COMMAND                     a command line for the shell, in which ``docker`` is the client under test
    & COMMAND                     the same, in the background; its answer comes at ``wait``
    tty COMMAND                   the same on a terminal
    until TEXT: COMMAND           repeat the command until its output has the text; only that is noted
    GET TARGET                    a request (GET, HEAD, POST, PUT, DELETE), maybe with a JSON body behind the target
    keys GET TARGET               note the names and types of the answer's JSON alone
    frames GET TARGET             the body is a multiplexed stream
    stream POST TARGET <<< TEXT   ask for a raw stream, and send a line of text and the end; frames come back
    raw POST TARGET <<< TEXT      the same for a terminal, without frames
    wait                          note what the commands in the background have answered

``LAST`` in a target is the id that the last answer with one had.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.containers.golden.masks import Masks
from tests.containers.golden.raw_api import Answer, documents, frames, request, stream_request

SCENES: Final = Path(__file__).parent / "scenes"
#: Seconds after which a command is taken to hang.
TIMEOUT: Final = 120.0
_REQUEST: Final = re.compile(
    r"(?:(keys|frames|stream|raw) )?(GET|HEAD|POST|PUT|DELETE) (\S+)(?: (\{.*?\}))?(?: <<< (.*))?"
)
_UNTIL: Final = re.compile(r"until (.*?): (.*)")


def scenes(group: str) -> list[str]:
    """Return the names of the scenes of a group: ``docker`` for the command line, ``api`` for requests, ``tools``."""
    return sorted(path.stem for path in (SCENES / group).glob("*.txt"))


def steps(group: str, name: str) -> list[str]:
    """Return the lines of a scene."""
    text = (SCENES / group / f"{name}.txt").read_text().replace("\\\n", "")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@dataclass
class Stage:
    """Where a scene is played: an engine's socket, a client, and an empty directory."""

    socket: str
    client: str
    folder: Path
    root: str
    registry: str = ""
    _masks: Masks = field(init=False)
    _last: str = field(init=False, default="")
    _waiting: list[tuple[str, subprocess.Popen[bytes]]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        places = {str(self.folder): "<here>", self.root: "<root>", self.socket: "<socket>"}
        self._masks = Masks({**places, **({self.registry: "<registry>"} if self.registry else {})})

    def play(self, lines: list[str]) -> str:
        """Return the transcript of a scene. What it leaves in the background is ended."""
        try:
            return "".join(f"{self._masks.masked(text)}\n" for line in lines for text in self._step(line))
        finally:
            for _, process in self._waiting:
                _end(process)

    def _step(self, line: str) -> Iterator[str]:
        if line == "wait":
            for command, process in self._waiting:
                yield f"wait {command}"
                yield from _finished(process)
            self._waiting.clear()
        elif line.startswith("& "):
            self._waiting.append((line[2:], self._start(line[2:])))
            yield line
        elif line.startswith("$ "):
            yield line
            yield from _finished(self._start(line[2:]))
        elif line.startswith("tty "):
            yield line
            yield from self._on_terminal(line.removeprefix("tty "))
        elif found := _UNTIL.fullmatch(line):
            yield line
            yield from self._until(found[1], found[2])
        elif found := _REQUEST.fullmatch(line):
            yield line
            yield from self._request(*found.groups())
        else:
            raise ValueError(f"no line of a scene: {line}")

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": f"{self._client_folder()}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.folder / ".docker"),
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_HINTS": "false",
            "REGISTRY": self.registry,
            "PYTHON": sys.executable,
            "PROGRAMS": str(SCENES / "programs"),
        }

    def _client_folder(self) -> Path:
        """Return a directory in which ``docker`` is the client."""
        folder = self.folder / ".bin"
        if not folder.exists():
            folder.mkdir()
            (folder / "docker").symlink_to(self.client)
        return folder

    def _start(self, command: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
        pipe: Any = subprocess.PIPE if terminal is None else terminal
        standard: Any = subprocess.DEVNULL if terminal is None else terminal
        return subprocess.Popen(
            ("sh", "-c", command), cwd=self.folder, env=self._environment(), stdin=standard, stdout=pipe, stderr=pipe,
            start_new_session=True,
        )  # fmt: skip

    def _on_terminal(self, command: str) -> Iterator[str]:
        ours, theirs = pty.openpty()
        try:
            process = self._start(f"stty cols 80 rows 24 -echo; exec {command}", theirs)
            os.close(theirs)
            yield from _output("", _read_terminal(ours))
            yield f"= {process.wait(TIMEOUT)}"
        finally:
            os.close(ours)

    def _until(self, text: str, command: str) -> Iterator[str]:
        end = time.monotonic() + TIMEOUT
        while True:
            output, errors = self._start(command).communicate(timeout=TIMEOUT)
            if text.encode() in output:
                return
            if time.monotonic() > end:
                yield f"never, but {(output + errors).decode(errors='replace')}"
                return
            time.sleep(0.1)

    def _request(self, kind: str | None, method: str, target: str, body: str | None, data: str | None) -> Iterator[str]:
        sent, target = (body or "").encode(), target.replace("LAST", self._last)
        if kind in ("stream", "raw"):
            answer = stream_request(self.socket, method, target, f"{data}\n".encode() if data else b"", sent)
        else:
            answer = request(self.socket, method, target, sent)
        if answer.status == 201:
            self._last = next((found["Id"] for found in documents(answer.body) if "Id" in found), self._last)
        yield f"= {answer.status} {answer.media_type if answer.body or method == 'HEAD' else ''}".rstrip()
        yield from _body(kind, answer)


def _finished(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield what a command has written, and its exit status if that is not 0."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        _end(process)
        yield "= hangs"
        return
    yield from _output("", output)
    yield from _output("! ", errors)
    if process.returncode:
        yield f"= {process.returncode}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _output(mark: str, text: bytes) -> Iterator[str]:
    for line in text.decode(errors="backslashreplace").replace("\r\n", "\n").splitlines():
        yield f"{mark}{line}"


def _read_terminal(terminal: int) -> bytes:
    found = b""
    while select.select([terminal], [], [], TIMEOUT)[0]:
        try:
            found += os.read(terminal, 1 << 16)
        except OSError:  # Linux's answer when nobody has the other side any more
            break
    return found


def _body(kind: str | None, answer: Answer) -> Iterator[str]:
    if answer.media_type.startswith("application/json") and answer.body:
        for document in documents(answer.body):
            ordered = sorted(document, key=_name) if isinstance(document, list) else document
            yield from _leaves("", _kinds(document) if kind == "keys" else ordered)
    elif kind == "raw" or (kind is None and answer.media_type == "application/vnd.docker.raw-stream"):
        yield repr(answer.body.decode(errors="backslashreplace"))
    elif answer.status == 101 or kind == "frames":
        for number, content in sorted(frames(answer.body).items()):
            yield f"{number}: {content.decode(errors='backslashreplace')!r}"
    else:
        yield from _output("", answer.body)


def _leaves(path: str, value: Any) -> Iterator[str]:
    """Yield a line for each value that has no parts, with the path that leads to it."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _leaves(f"{path}.{key}", value[key])
    elif isinstance(value, list) and value:
        for index, one in enumerate(value):
            yield from _leaves(f"{path}[{index}]", one)
    else:
        yield f"{path} = {json.dumps(value)}"


def _name(document: Any) -> str:
    """Return what to sort a list by: an engine has no order for networks."""
    return str(document.get("Name", "")) if isinstance(document, dict) else ""


def _kinds(document: Any) -> Any:
    """Return a document with the kinds of its values in place of them. Of a list there is the first."""
    if isinstance(document, dict):
        return {key: _kinds(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_kinds(value) for value in document[:1]]
    return type(document).__name__
