"""Which scenes are played with which clients, and where a dockerd's answers are."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.containers.golden.scene import scenes

#: Docker's clients whose answers there are, by their major versions, and where they are found.
CLIENTS: Final = {"docker-20": "/usr/bin/docker", "docker-28": "/usr/local/bin/docker"}
#: What some scenes are played with besides.
_PROGRAMS: Final = {"registry": "docker-registry", "compose": "docker-compose"}
_EXPECTED: Final = Path(__file__).parent / "expected"


class Play(NamedTuple):
    """A scene, and the client that plays it: ``api`` for scenes of requests, ``tools`` for those of other tools."""

    client: str
    scene: str

    @property
    def group(self) -> str:
        """The directory of the scene."""
        return self.client if self.client in ("api", "tools") else "docker"

    @property
    def missing(self) -> str:
        """What this machine lacks for the scene, or an empty text."""
        if self.client != "api" and not clients():
            return "docker's command line is not installed"
        if self.group == "docker" and self.client not in clients():
            return f"there is no {self.client}"
        if self.scene in _PROGRAMS and shutil.which(_PROGRAMS[self.scene]) is None:
            return f"{_PROGRAMS[self.scene]} is not installed"
        if self.scene == "sdk" and importlib.util.find_spec("docker") is None:
            return "docker's library for Python is not installed"
        return ""

    @property
    def command(self) -> str:
        """The path of docker's command for the scene."""
        found = clients()
        return found.get(self.client) or next(iter(found.values()), "")

    def __str__(self) -> str:
        return f"{self.client}/{self.scene}"


def plays() -> list[Play]:
    """Return all that can be played."""
    return [
        *(Play("api", scene) for scene in scenes("api")),
        *(Play("tools", scene) for scene in scenes("tools")),
        *(Play(client, scene) for client in CLIENTS for scene in scenes("docker")),
    ]


def expected_file(play: Play) -> Path:
    """Return the file with the transcript of a dockerd."""
    return _EXPECTED / play.client / f"{play.scene}.txt"


@functools.cache
def clients() -> dict[str, str]:
    """Return the clients that this machine has: their paths by their names in CLIENTS."""
    found = {}
    for name, usual in CLIENTS.items():
        for path in (usual, shutil.which("docker")):
            if path is not None and Path(path).exists() and _major(path) == name.removeprefix("docker-"):
                found[name] = path
                break
    return found


def _major(path: str) -> str:
    said = subprocess.run((path, "--version"), check=False, capture_output=True, text=True, timeout=30).stdout
    version = re.search(r"version (\d+)", said)
    return version[1] if version else ""
