"""An engine whose disk is full says so, and containers can be removed, which makes room."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.images.disk import no_room
from tests.containers.engine.asking import WAITS, create, running
from tests.containers.engine.engines import TIMEOUT, TestEngine
from tests.containers.engine.images import words_tar
from tests.containers.images.archives import config
from tests.containers.images.registry.made import tar_of

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


def _fill(path: Path, but: int = 0) -> None:
    """Take all room that the disk of a file has, ``but`` so many bytes."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    os.truncate(path, path.stat().st_size - but)


def _image(*layers: bytes) -> bytes:
    """Return an archive of an image with these layers, as `docker save` makes it."""
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    described = [{"Config": "config.json", "RepoTags": ["saved:latest"], "Layers": list(files)}]
    return tar_of(**files, **{"config.json": config(*layers), "manifest.json": json.dumps(described).encode()})


def container_folder(engine: TestEngine) -> Path:
    """Return the directory of the only container."""
    (found,) = engine.ask("GET", "/containers/json?all=1").json
    return engine.folder / "containers" / str(found["Id"])


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
    assert "no room" in said.message and str(engine.folder) in said.message
    said = engine.ask("DELETE", "/containers/box?force=1")
    assert said.status == 204, said
    assert engine.ask("GET", "/containers/json?all=1").json == []
    (inside / "filled").unlink()
    running(engine, "box")
    assert engine.ask("DELETE", "/containers/box?force=1").status == 204
    assert engine.end() == 0
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()


def test_what_cannot_be_remembered_is_not_done_and_can_be_done_later(engine: TestEngine) -> None:
    inside = Path(f"/proc/{engine.pid}/root{engine.folder}")
    running(engine, "box")
    _fill(inside / "filled")
    policy = {"RestartPolicy": {"Name": "always"}}
    for path, body in (("pause", None), ("update", policy), ("rename?name=other", None)):
        said = engine.ask("POST", f"/containers/box/{path}", body)
        assert said.status == 500 and "no room" in said.message, (path, said)
        found = engine.ask("GET", "/containers/box/json").json
        assert found["State"]["Status"] == "running"
        assert found["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    assert engine.ask("POST", "/containers/box/stop?t=0").status == 204
    said = engine.ask("POST", "/containers/box/start")
    assert said.status == 500 and "no room" in said.message
    assert engine.ask("GET", "/containers/box/json").json["State"]["Status"] == "exited"
    (inside / "filled").unlink()
    assert engine.ask("POST", "/containers/box/start").status == 204
    assert engine.ask("POST", "/containers/box/pause").status == 204
    assert engine.ask("DELETE", "/containers/box?force=1").status == 204
    assert engine.end() == 0
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()


def test_what_makes_images_says_that_there_is_no_room_and_leaves_nothing(engine: TestEngine) -> None:
    """Builds, commits, imports and archives end with one sentence; what was there is there, and then they work."""
    inside = Path(f"/proc/{engine.pid}/root{engine.folder}")
    running(engine, "box")
    large = tar_of(Dockerfile=b"FROM words\nCOPY big /big\n", big=os.urandom(6 << 20))
    saved = _image(tar_of(big=os.urandom(6 << 20)))
    assert engine.ask("PUT", "/containers/box/archive?path=/tmp", tar_of(file=os.urandom(1 << 20))).status == 200

    def attempts() -> list[bytes]:
        return [
            engine.ask("POST", "/build?t=built", large).body,
            engine.ask("POST", "/images/create?fromSrc=-&repo=imported", large).body,
            engine.ask("POST", "/images/load", saved).body,
            engine.ask("POST", "/commit?container=box&repo=made").body,
        ]

    before = engine.ask("GET", "/images/json?all=1").json
    _fill(inside / "filled")
    for said in attempts():
        assert b"no room" in said or b"No space left" in said, said
        assert str(engine.folder).encode() in said, said
    assert engine.ask("GET", "/images/json?all=1").json == before
    (inside / "filled").unlink()
    assert not list((inside / "spool").iterdir()) and not list((inside / "images" / "new").iterdir())
    assert engine.ask("GET", "/containers/box/json").json["State"]["Running"]
    assert engine.ask("POST", "/commit?container=box&repo=made").status == 201
    assert engine.ask("DELETE", "/containers/box?force=1").status == 204
    assert engine.end() == 0
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()


def test_layers_that_had_room_do_not_stay_without_the_image(engine: TestEngine) -> None:
    inside = Path(f"/proc/{engine.pid}/root{engine.folder}")
    archive = _image(tar_of(first=os.urandom(1 << 20)), tar_of(second=os.urandom(4 << 20)))
    before = sorted((inside / "images" / "layers").iterdir())
    _fill(inside / "filled", 3 << 20)
    said = engine.ask("POST", "/images/load", archive)
    assert no_room("images", f"{engine.folder}/images").encode() in said.body
    end = time.monotonic() + TIMEOUT
    while sorted((inside / "images" / "layers").iterdir()) != before:
        assert time.monotonic() < end, "a layer has stayed"
        time.sleep(0.05)
    (inside / "filled").unlink()
    assert b"Loaded image: saved:latest" in engine.ask("POST", "/images/load", archive).body
    assert engine.end() == 0


def test_what_a_container_writes_waits_for_room(engine: TestEngine) -> None:
    """A guest that got an error from its disk would lose what it has written, and could only read from then on."""
    inside, log = Path(f"/proc/{engine.pid}/root{engine.folder}"), Path(f"{engine.folder}.log")
    running(engine, "box")
    data = os.urandom(1 << 20)
    assert engine.ask("PUT", "/containers/box/archive?path=/tmp", tar_of(file=data)).status == 200
    _fill(inside / "filled")  # before the guest has written it down
    said = engine.ask("PUT", "/containers/box/archive?path=/tmp", tar_of(more=data))
    assert said.status == 500
    assert said.message == no_room("the archive", str(container_folder(engine)))
    end = time.monotonic() + TIMEOUT
    while f"the guest waits for the disk {engine.folder}" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.1)  # Linux writes down what it has every few seconds
    (inside / "filled").unlink()
    assert engine.ask("PUT", "/containers/box/archive?path=/tmp", tar_of(more=b"more")).status == 200
    for name, content in (("file", data), ("more", b"more")):
        said = engine.ask("GET", f"/containers/box/archive?path=/tmp/{name}")
        assert said.status == 200 and content in said.body
    assert engine.ask("DELETE", "/containers/box?force=1").status == 204
    assert engine.end() == 0
    assert log.read_text().count("the guest waits for the disk") == 1
    assert "Traceback" not in log.read_text()
