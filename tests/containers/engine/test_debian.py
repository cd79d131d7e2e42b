"""A whole Debian for armel: its packages are configured in a container, and the image goes to a registry and back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.images.registry.real import docker_registry
from tests.long import long_only

_ARCHIVE: Final = Path(os.environ.get("DBT_CONTAINER_IMAGES", ""), "debian-armel.tar")
#: What others expect without saying so goes first.
_CONFIGURE: Final = (
    "for package in base-passwd base-files mawk; do dpkg --force-depends --configure $package || exit 1; done; "
    "dpkg --configure -a"
)
#: Programs, and what they say on any Debian 12.
_PROGRAMS: Final = {
    "python3 -c 'print(2**100)'": "1267650600228229401496703205376",
    "sqlite3 :memory: 'select 6 * 7'": "42",
    "perl -e 'printf \"%.3f\", atan2(1, 1) * 4'": "3.142",
    "bash -c 'echo ${BASH_VERSINFO[0]}'": "5",
    "id -un": "root",
    "dpkg --audit": "",
    "printf '3\\n1\\n2\\n' | sort | tr '\\n' ' '": "1 2 3 ",
}

pytestmark = [
    long_only,
    pytest.mark.skipif(not _ARCHIVE.is_file(), reason="DBT_CONTAINER_IMAGES is no directory with debian-armel.tar"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="docker's command line is not installed"),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TestEngine]:
    with engine_in(tmp_path / "state") as found:
        yield found


def said(engine: TestEngine, *arguments: str) -> str:
    """Return what a command of docker's says. It has to succeed."""
    done = engine.docker(*arguments)
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout.decode()


def test_a_debian_is_configured_pushed_pulled_and_used(engine: TestEngine, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as registry:
        name = f"{registry}/arm32v5/debian:12"
        said(engine, "import", str(_ARCHIVE), "unpacked")
        variables = ("-e", "DEBIAN_FRONTEND=noninteractive", "-e", "LC_ALL=C")
        said(engine, "run", "-d", "--name", "configured", *variables, "unpacked", "sh", "-c", _CONFIGURE)
        state = ("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "configured")
        while said(engine, *state).startswith("running"):
            time.sleep(1)
        assert said(engine, *state) == "exited 0\n", said(engine, "logs", "configured")
        said(engine, "commit", "-c", 'CMD ["bash"]', "configured", name)
        said(engine, "rm", "configured")
        said(engine, "push", "-q", name)
        said(engine, "rmi", name, "unpacked")
        assert said(engine, "images", "-q", "-a") == ""
        said(engine, "pull", "-q", name)
        for program, expected in _PROGRAMS.items():
            assert said(engine, "run", "--rm", name, "sh", "-c", program).rstrip("\n") == expected, program
        assert said(engine, "run", "--rm", name, "dpkg-query", "-Wf", "${db:Status-Abbrev}\n").split() == ["ii"] * int(
            said(engine, "run", "--rm", name, "sh", "-c", "dpkg-query -W | wc -l")
        )
