"""The engines that are measured, each with directories of its own, and the commands that they are given."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbt_command import DBT, checkout_environment

_START_S: Final = 120.0
_END_S: Final = 60.0


@dataclass(frozen=True)
class Setup:
    """What a benchmark has: a directory for what it makes, the images, and how often short commands are run."""

    folder: Path
    images: Path
    runs: int

    @property
    def has_dockerd(self) -> bool:
        """True if a real dockerd can be started here."""
        return os.geteuid() == 0 and all(map(shutil.which, ("dockerd", "unshare", "ip")))


@dataclass(frozen=True)
class Engine:
    """An engine that runs: its socket and its process ID."""

    socket: Path
    pid: int

    def docker(self, *arguments: str, status: int = 0) -> str:
        """Run a command of docker's at the engine, and return what it writes. Raise CalledProcessError."""
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        command = ("docker", *arguments)
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != status:
            raise subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
        return result.stdout

    def import_busybox(self, images: Path, architecture: str) -> None:
        """Make the image ``busybox`` of an archive."""
        self.docker("import", str(images / f"busybox-{architecture}.tar"), "busybox")


def processes_from(root: int) -> set[int]:
    """Return the IDs of a process and of all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


@contextmanager
def our_engine(folder: Path, cache: Path | None = None) -> Iterator[Engine]:
    """Run our engine with what it has in ``folder``, and with ``cache`` in place of the user's cache directory."""
    environment = {**checkout_environment(), "DBT_CONTAINER_DIR": str(folder)}
    if cache is not None:
        environment["DBT_CACHE_DIR"] = str(cache)
    folder.mkdir(0o700, parents=True, exist_ok=True)
    socket = folder / "docker.sock"
    with _process((*DBT, "container", "serve"), environment, folder / "output", socket) as engine:
        yield engine


@contextmanager
def real_engine(folder: Path) -> Iterator[Engine]:
    """Run Debian's dockerd with all it has in ``folder``, and without the host's network."""
    folder.mkdir(parents=True)
    socket = folder / "docker.sock"
    places = {"data-root": folder / "data", "exec-root": folder / "exec", "pidfile": folder / "pid"}
    options = [f"--{name}={path}" for name, path in places.items()]
    options += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    command = ("unshare", "--net", "dockerd", *options, f"--host=unix://{socket}")
    with _process(command, dict(os.environ), folder / "output", socket) as engine:
        yield engine


@contextmanager
def _process(command: tuple[str, ...], environment: dict[str, str], log: Path, socket: Path) -> Iterator[Engine]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        end = time.monotonic() + _START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()}")
            time.sleep(0.001)
        yield Engine(socket, process.pid)
    finally:
        process.terminate()
        process.wait(_END_S)
