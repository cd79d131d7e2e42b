"""The short commands of ``dbt container``, which start the engine when it is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine.engines import TIMEOUT, Connection
from tests.containers.engine.images import add_images
from tests.programs.running import ROOT, environment


class Verbs:
    """Runs verbs with an engine of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        variables = {**environment(), "DBT_CONTAINER_DIR": str(self.folder)}
        command = [sys.executable, "-m", "dbt", "container", *words]
        return subprocess.run(
            command, cwd=ROOT, env=variables, input=stdin, capture_output=True, timeout=TIMEOUT, check=False
        )

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def end(self) -> None:
        """End the engine."""
        found = [pid for pid in os.listdir("/proc") if pid.isdigit() and self._is_engine(pid)]
        for pid in found:
            os.kill(int(pid), signal.SIGTERM)
        while any(self._is_engine(pid) for pid in found):
            time.sleep(0.05)

    def _is_engine(self, pid: str) -> bool:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file, open(f"/proc/{pid}/environ", "rb") as variables:
                is_it = b"\0serve\0--on-demand" in file.read()
                return is_it and f"DBT_CONTAINER_DIR={self.folder}".encode() in variables.read().split(b"\0")
        except OSError:
            return False


@pytest.fixture(scope="module")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    folder = tmp_path_factory.mktemp("v") / "c"
    folder.mkdir(mode=0o700)
    add_images(folder)
    made = Verbs(folder)
    yield made
    made.end()


def test_run(verbs: Verbs) -> None:
    assert verbs.ok("run", "--rm", "words") == "hi\n"
    assert verbs.ok("run", "--rm", "-i", "words", "words", "copy", stdin=b"typed") == "typed"
    done = verbs("run", "--rm", "-e", "X=y", "words", "words", "variable", "X", "complain", "no", "status", "5")
    assert (done.returncode, done.stdout, done.stderr) == (5, b"y\n", b"no\n")
    assert verbs("run", "--rm", "words", "nothing").returncode == 127
    assert verbs.ok("ps", "-a", "-q") == ""


def test_a_container_that_goes_on(verbs: Verbs) -> None:
    id = verbs.ok("run", "-d", "-i", "--name", "box", "--memory", "64m", "words", "words", "say", "x", "copy").strip()
    assert verbs.ok("ps", "-q") == f"{id[:12]}\n"
    assert "box" in verbs.ok("ps").splitlines()[1]
    assert verbs.ok("exec", "box", "words", "say", "in") == "in\n"
    assert verbs("exec", "box", "words", "status", "3").returncode == 3
    assert verbs.ok("logs", "box") == "x\n"
    connection = Connection(str(verbs.folder / "docker.sock"))
    connection.request("GET", "/containers/box/json")
    assert json.loads(connection.getresponse().read())["HostConfig"]["Memory"] == 64 << 20
    connection.close()
    done = verbs("stop", "-t", "0", "nobody", "box")
    assert (done.returncode, done.stdout) == (125, b"box\n")
    assert done.stderr == b"dbt: No such container: nobody.\n"
    assert verbs.ok("rm", "box") == "box\n"


@pytest.mark.parametrize("words", [("run",), ("run", "--memory", "x", "words"), ("run", "--cpus", "x", "words")])
def test_what_is_wrong(verbs: Verbs, words: tuple[str, ...]) -> None:
    assert verbs(*words).returncode == 120
