"""Which scenes are played with which clients, and where a dockerd's answers are."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.containers.golden.scene import scenes

#: Docker's clients whose answers there are, by their major versions, and where they are found.
CLIENTS: Final = {"docker-20": "/usr/bin/docker", "docker-28": "/usr/local/bin/docker"}
_EXPECTED: Final = Path(__file__).parent / "expected"


class Play(NamedTuple):
    """A scene, and the client that plays it: ``api`` for scenes of requests."""

    client: str
    scene: str

    @property
    def group(self) -> str:
        """The directory of the scene."""
        return "api" if self.client == "api" else "docker"

    def __str__(self) -> str:
        return f"{self.client}/{self.scene}"


def plays() -> list[Play]:
    """Return all that can be played."""
    return [
        *(Play("api", scene) for scene in scenes("api")),
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
