"""A real dockerd, to ask what is right. It needs root, and a network namespace of its own, which ``refresh`` has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_S = 30.0


@contextmanager
def dockerd(folder: Path) -> Iterator[str]:
    """Run a dockerd with all it has in ``folder``, and yield the path of its socket."""
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    places = {"data-root": folder / "data", "exec-root": folder / "exec", "pidfile": folder / "pid"}
    options = [f"--{name}={path}" for name, path in places.items()]
    options += ["--iptables=false", "--ip6tables=false", "--storage-driver=vfs", f"--host=unix://{socket}"]
    with log.open("wb") as output:
        process = subprocess.Popen(("dockerd", *options), stdout=output, stderr=output)
    try:
        end = time.monotonic() + _START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"dockerd does not start: {log.read_text()}")
            time.sleep(0.1)
        yield str(socket)
    finally:
        process.terminate()
        process.wait(_START_S)
