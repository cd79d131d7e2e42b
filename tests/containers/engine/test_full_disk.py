"""An engine whose disk is full says so, and containers can be removed, which makes room."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine.asking import WAITS, create, running
from tests.containers.engine.engines import TestEngine
from tests.containers.engine.images import words_tar

_SIZE = "16m"
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_MOUNT = f'mount -t tmpfs -o size={_SIZE},mode=700 none "$0" && '


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TestEngine]:
    """An engine on a small disk, which it alone sees."""
    folder = tmp_path / "c"
    folder.mkdir(0o700)
    mount = (*_UNSHARE, "sh", "-c", _MOUNT + "true", str(folder))
    if shutil.which("unshare") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("there are no user namespaces here, in which one may mount a small disk")
    made = TestEngine(folder, (*_UNSHARE, "sh", "-c", _MOUNT + 'exec "$@"', str(folder)))
    made.socket = str(tmp_path / "docker.sock")
    made.start()
    try:
        said = made.ask("POST", "/images/create?fromSrc=-&repo=words&changes=ENV%20PATH=/bin", words_tar())
        assert said.status == 200, said
        yield made
    finally:
        if made.is_running:
            made.end()


def _fill(path: Path) -> None:
    """Take all room that the disk of a file has."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("runs", [True, False])
def test_a_container_can_be_removed_from_a_full_disk(engine: TestEngine, runs: bool) -> None:
    inside = Path(f"/proc/{engine.pid}/root{engine.folder}")
    if runs:
        running(engine, "box")
    else:
        create(engine, "box", *WAITS)
    _fill(inside / "filled")
    said = engine.ask("POST", "/containers/create?name=more", {"Image": "words", "Cmd": WAITS})
    assert said.status == 500
    assert "no room" in said.message or "full" in said.message
    said = engine.ask("DELETE", "/containers/box?force=1")
    assert said.status == 204, said
    assert engine.ask("GET", "/containers/json?all=1").json == []
    (inside / "filled").unlink()
    running(engine, "box")
    assert engine.ask("DELETE", "/containers/box?force=1").status == 204
    assert engine.end() == 0
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()
