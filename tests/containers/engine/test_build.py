"""Builds by docker's API, and by docker's own command."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engine.engines import TIMEOUT, TestEngine

_TAR = {"Content-Type": "application/x-tar"}


def context(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def build(engine: TestEngine, query: str, **files: str) -> list[dict[str, Any]]:
    said = engine.ask("POST", f"/build?version=1&rm=1&{query}", context(**files), _TAR)
    assert (said.status, said.headers["content-type"]) == (200, "application/json"), said.body
    return [json.loads(line) for line in said.body.splitlines()]


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(message.get("stream", "") for message in messages)


def test_a_build_has_files_programs_and_a_name(engine: TestEngine) -> None:
    dockerfile = 'FROM words\nCOPY file /copied\nRUN ["words", "say", "hello"]\nCMD ["words", "say", "built"]\n'
    messages = build(engine, "t=made:1", Dockerfile=dockerfile, file="content\n")
    text = text_of(messages)
    assert text.startswith("Step 1/4 : FROM words\n ---> ") and "\nhello\nRemoving intermediate container " in text
    assert text.endswith("Successfully tagged made:1\n")
    (image,) = [message["aux"]["ID"] for message in messages if "aux" in message]
    again = text_of(build(engine, "t=made:1", Dockerfile=dockerfile, file="content\n"))
    assert again.count(" ---> Using cache\n") == 3 and image[7:19] in again
    other = text_of(build(engine, "t=made:2", Dockerfile=dockerfile, file="changed\n"))
    assert " ---> Using cache\n" not in other


def test_what_a_build_says_before_it_begins_is_an_error(engine: TestEngine) -> None:
    said = engine.ask("POST", "/build?version=1", context(Dockerfile="FROM words\nWHAT\n"), _TAR)
    assert (said.status, said.message) == (400, "dockerfile parse error line 2: unknown instruction: WHAT")
    said = engine.ask("POST", "/build?version=1", b"no archive", _TAR)
    assert said.status == 500 and said.message.startswith("Error processing tar file: ")
    said = engine.ask("POST", "/build?version=2", context(Dockerfile="FROM words\n"), _TAR)
    assert said.status == 400 and "DOCKER_BUILDKIT=0" in said.message


def test_a_program_that_fails(engine: TestEngine) -> None:
    messages = build(engine, "nocache=1", Dockerfile='FROM words\nRUN ["words", "status", "7"]\n')
    failure = "The command 'words status 7' returned a non-zero code: 7"
    assert messages[-1] == {"errorDetail": {"code": 7, "message": failure}, "error": failure}


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker's command is not installed")
def test_dockers_command_builds(engine: TestEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM words AS one\nCOPY . /all\nFROM words\nCOPY --from=one /all /all\n")
    (tmp_path / ".dockerignore").write_text("*.md\n")
    (tmp_path / "left.md").write_text("not this\n")
    (tmp_path / "taken.txt").write_text("this\n")
    said = engine.docker("build", "-t", "copied", str(tmp_path))
    assert said.returncode == 0, said.stderr
    assert said.stdout.endswith(b"Successfully tagged copied:latest\n")
    copied = engine.docker("run", "--rm", "copied", "words", "file", "/all/taken.txt")
    assert copied.stdout == b"this\n", copied
    assert engine.docker("run", "--rm", "copied", "words", "file", "/all/left.md").returncode != 0


def test_programs_of_builds_are_in_a_network_that_leaves_nothing(engine: TestEngine) -> None:
    dockerfile = 'FROM words\nRUN ["words", "file", "/etc/hosts"]\n'
    for mode, has_address in (("default", True), ("none", False)):
        messages = build(engine, f"nocache=1&networkmode={mode}", Dockerfile=dockerfile)
        container = re.search(r"Running in ([0-9a-f]{12})\n", text_of(messages))
        assert container is not None
        assert (re.search(rf"\n172\.\d+\.\d+\.\d+\t{container[1]}\n", text_of(messages)) is not None) is has_address
        (image,) = [message["aux"]["ID"] for message in messages if "aux" in message]
        base = engine.ask("GET", "/images/words/json").json
        assert engine.ask("GET", f"/images/{image}/json").json["RootFS"] == base["RootFS"]
    networks = engine.ask("GET", "/networks/bridge").json
    assert networks["Containers"] == {}
    said = engine.ask("POST", "/build?version=1&nocache=1&networkmode=nowhere", context(Dockerfile=dockerfile), _TAR)
    assert "network nowhere not found" in said.body.decode()


def test_a_build_ends_when_its_client_is_gone(engine: TestEngine) -> None:
    data = context(Dockerfile='FROM words\nRUN ["words", "say", "here", "wait"]\n')
    head = f"POST /v1.47/build?version=1&nocache=1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    machines = engine.folder / "machines"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(engine.socket)
        client.sendall(head.encode() + data)
        said = b""
        while b':"here' not in said:  # a program's output comes in pieces
            said += client.recv(4096)
        assert list(machines.glob("*.lease"))
    end = time.monotonic() + TIMEOUT
    while list(machines.glob("*.lease")) or list((engine.folder / "spool").iterdir()):
        assert time.monotonic() < end, "the program of the build goes on"
        time.sleep(0.05)
