"""Ask a real dockerd again what the tests compare with.

    python -m tests.containers.golden.refresh [docker-28/life ...]

It needs root, docker's daemon and clients, docker-compose, docker-registry, docker's library for Python, and
DBT_CONTAINER_IMAGES with what ``make images`` makes. Everything runs in a network namespace of its own. Read what
changes before it is committed: it is the expected answer from then on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.containers.golden.dockerd import dockerd
from tests.containers.golden.expected import expected_file, plays
from tests.containers.golden.registry import registry_for
from tests.containers.golden.scene import Stage, steps
from tests.containers.golden.tidy import tidy

_INSIDE = "DBT_GOLDEN_NAMESPACE"


def main(chosen: list[str]) -> int:
    if _INSIDE not in os.environ:
        command = 'ip link set lo up && exec "$@"'
        python = (sys.executable, "-m", "tests.containers.golden.refresh", *chosen)
        return subprocess.run(
            ("unshare", "--net", "sh", "-c", command, "sh", *python), check=False, env={**os.environ, _INSIDE: "1"}
        ).returncode
    archive = Path(os.environ["DBT_CONTAINER_IMAGES"], "busybox-amd64.tar")
    with tempfile.TemporaryDirectory(prefix="golden-") as name, dockerd(Path(name)) as socket:
        for play in plays():
            if chosen and str(play) not in chosen:
                continue
            tidy(socket, archive)
            folder = Path(name, "here", str(play))
            folder.mkdir(parents=True)
            with registry_for(play, folder) as registry:
                transcript = Stage(socket, play.command, folder, f"{name}/data", registry).play(
                    steps(play.group, play.scene)
                )
            target = expected_file(play)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(transcript)
            print(play, flush=True)
        tidy(socket, archive)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
