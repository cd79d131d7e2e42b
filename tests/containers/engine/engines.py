"""An engine of its own for tests, in a directory of its own, and a client that speaks docker's API to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.programs.running import ROOT, environment

#: Seconds after which something is taken to hang.
TIMEOUT = 120


class Said(NamedTuple):
    """An answer: its status, its headers with names in small letters, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error."""
        text = self.json["message"]
        assert isinstance(text, str)
        return text


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


class TestEngine:
    """An engine whose directory is ``folder``. ``starter`` is a command that executes what follows it, and ``options``
    are those of ``dbt container serve``.
    """

    __test__ = False

    def __init__(self, folder: Path, starter: Sequence[str] = (), options: Sequence[str] = ()) -> None:
        self.folder, self.starter, self.options = folder, starter, options
        self.socket = str(folder / "docker.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        serve = ["dbt", "container", "serve", "--socket", self.socket, *self.options]
        command = [*self.starter, sys.executable, "-m", *serve]
        variables = {**environment(), "DBT_CONTAINER_DIR": str(self.folder)}
        with open(self.folder.parent / f"{self.folder.name}.log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"export DOCKER_HOST=unix://{self.socket}\n".encode()

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal. Return its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    @property
    def pid(self) -> int:
        """The process ID of an engine that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def remove_containers(self) -> None:
        """Kill and remove what containers there are."""
        for container in self.ask("GET", "/containers/json?all=1").json:
            self.ask("DELETE", f"/containers/{container['Id']}?force=1")

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, api: str = "/v1.47"
    ) -> Said:
        """Return the answer to a request, whose body is bytes, or a value as JSON."""
        connection = Connection(self.socket)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not body else {}
        try:
            connection.request(method, api + path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Said(answer.status, found, answer.read())
        finally:
            connection.close()

    def docker(
        self, *arguments: str, command: str = "docker", stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run docker's own command to its end."""
        variables = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            [command, *arguments], input=stdin, capture_output=True, env=variables, timeout=TIMEOUT, check=False
        )


@contextmanager
def engine_in(folder: Path, starter: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[TestEngine]:
    folder.mkdir(mode=0o700, exist_ok=True)
    engine = TestEngine(folder, starter, options)
    engine.start()
    try:
        yield engine
    finally:
        if engine.is_running:
            engine.remove_containers()  # those that run would be waited for, ten seconds by docker's rules
            engine.end()
