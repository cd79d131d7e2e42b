"""Random verbs of docker to an engine that is killed at random moments, and what has to be true afterwards."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.containers.engine.asking import WAITS
from tests.containers.engine.engines import Said, TestEngine
from tests.containers.images.registry.made import tar_of

_CLIENTS: Final = 3
_MOST: Final = 5
#: Seconds within which everything that belongs to an engine has to end.
_END_S: Final = 30.0


class Torture:
    """One run. What an engine has acknowledged has to be there after its death, until somebody wants it removed."""

    def __init__(self, engine: TestEngine, seed: int) -> None:
        self._engine = engine
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        #: By id or name: True if it has to be there, False once its removal was asked for.
        self.containers: dict[str, bool] = {}
        self.images: dict[str, bool] = {}
        self.volumes: dict[str, bool] = {}
        self._count = 0
        self.done: dict[str, int] = {}
        self._is_over = False

    # -- verbs ---------------------------------------------------------------------------------

    def _one_of(self, known: dict[str, bool]) -> str | None:
        with self._lock:
            alive = [name for name, is_there in known.items() if is_there]
            return self._random.choice(alive) if alive else None

    def _number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def _keep(self, known: dict[str, bool], name: str) -> None:
        with self._lock:
            known.setdefault(name, True)

    def _lose(self, known: dict[str, bool], name: str) -> None:
        with self._lock:
            known[name] = False

    def _ask(self, method: str, path: str, body: object = None) -> Said:
        return self._engine.ask(method, path, body)

    def _create(self) -> None:
        if sum(self.containers.values()) >= _MOST:
            return self._remove()
        wish = {"Image": "words", "Cmd": WAITS, "OpenStdin": True}
        if self._random.random() < 0.3:
            wish["Cmd"] = ["words", "say", "x"]
        if (volume := self._one_of(self.volumes)) and self._random.random() < 0.3:
            wish["HostConfig"] = {"Binds": [f"{volume}:/data"]}
        said = self._ask("POST", f"/containers/create?name=c{self._number()}", wish)
        if said.status == 201:
            self._keep(self.containers, said.json["Id"])

    def _remove(self) -> None:
        if id := self._one_of(self.containers):
            self._lose(self.containers, id)
            self._ask("DELETE", f"/containers/{id}?force=1")

    def _on_one(self, method: str, path: str, body: object = None) -> None:
        if id := self._one_of(self.containers):
            self._ask(method, f"/containers/{id}{path}", body)

    def _exec(self) -> None:
        if id := self._one_of(self.containers):
            said = self._ask("POST", f"/containers/{id}/exec", {"Cmd": ["words", "write", "/x", "y"]})
            if said.status == 201:
                self._ask("POST", f"/exec/{said.json['Id']}/start", {"Detach": True})

    def _commit(self) -> None:
        if id := self._one_of(self.containers):
            said = self._ask("POST", f"/commit?container={id}&repo=made&tag=t{self._number()}")
            if said.status == 201:
                self._keep(self.images, said.json["Id"])

    def _import(self) -> None:
        number = self._number()
        said = self._ask("POST", f"/images/create?fromSrc=-&repo=i{number}", tar_of(file=b"%d" % number * 50_000))
        if said.status == 200 and b'"error"' not in said.body and b'"sha256:' in said.body:
            self._keep(self.images, "sha256:" + said.body.decode().split("sha256:")[1][:64])

    def _build(self) -> None:
        tag = f"b{self._number()}"
        file = f'FROM words\nLABEL a={tag}\nRUN ["words", "write", "/{tag}", "z"]\n'.encode()
        said = self._ask("POST", f"/build?t={tag}", tar_of(Dockerfile=file))
        if said.status == 200 and b"Successfully tagged" in said.body:
            self._keep(self.images, f"{tag}:latest")

    def _remove_image(self) -> None:
        if id := self._one_of(self.images):
            self._lose(self.images, id)
            self._ask("DELETE", f"/images/{id}?force=1")

    def _volume(self) -> None:
        name = f"v{self._number()}"
        if self._ask("POST", "/volumes/create", {"Name": name}).status == 201:
            self._keep(self.volumes, name)

    def _verbs(self) -> list[tuple[str, int, Callable[[], object]]]:
        return [
            ("create", 4, self._create),
            ("start", 6, lambda: self._on_one("POST", "/start")),
            ("stop", 2, lambda: self._on_one("POST", "/stop?t=0")),
            ("kill", 1, lambda: self._on_one("POST", "/kill")),
            ("restart", 1, lambda: self._on_one("POST", "/restart?t=0")),
            ("pause", 2, lambda: self._on_one("POST", "/pause")),
            ("unpause", 3, lambda: self._on_one("POST", "/unpause")),
            ("rename", 1, lambda: self._on_one("POST", f"/rename?name=r{self._number()}")),
            ("update", 1, lambda: self._on_one("POST", "/update", {"Memory": 64 << 20})),
            ("exec", 2, self._exec),
            ("cp in", 1, lambda: self._on_one("PUT", "/archive?path=/", tar_of(file=b"x" * 100_000))),
            ("cp out", 1, lambda: self._on_one("GET", "/archive?path=/bin")),
            ("checkpoint", 1, lambda: self._on_one("POST", "/checkpoints", {"CheckpointID": f"p{self._number()}"})),
            ("commit", 1, self._commit),
            ("import", 1, self._import),
            ("build", 1, self._build),
            ("rm", 1, self._remove),
            ("rmi", 1, self._remove_image),
            ("volume", 1, self._volume),
        ]

    def _client(self) -> None:
        verbs = self._verbs()
        while not self._is_over:
            with self._lock:
                name, _, verb = self._random.choices(verbs, [one[1] for one in verbs])[0]
            try:
                verb()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)  # the engine is dead just now
                continue
            with self._lock:
                self.done[name] = self.done.get(name, 0) + 1

    # -- the run -------------------------------------------------------------------------------

    def run(self, deaths: int, longest: float) -> None:
        """Let clients ask at random, kill the engine so many times, and see after each time what it has."""
        for _ in range(deaths):
            self._is_over = False
            clients = [threading.Thread(target=self._client) for _ in range(_CLIENTS)]
            for client in clients:
                client.start()
            time.sleep(self._random.uniform(0.1, longest))
            self._engine.end(signal.SIGKILL)
            self._is_over = True
            for client in clients:
                client.join()
            self._engine.start()
            self.check()
        self._engine.end()
        self.check_ended()

    def check(self) -> None:
        """See that the engine has what it has acknowledged, and that what runs answers."""
        listed = {one["Id"]: one for one in self._ask("GET", "/containers/json?all=1").json}
        missing = [id for id, is_there in self.containers.items() if is_there and id not in listed]
        assert not missing, f"containers are lost: {missing}"
        for id in listed:
            self._keep(self.containers, id)  # whose creation nobody has heard of
        for image, is_there in self.images.items():
            if is_there:
                assert self._ask("GET", f"/images/{image}/json").status == 200, f"the image {image} is lost"
        volumes = {one["Name"] for one in self._ask("GET", "/volumes").json["Volumes"]}
        assert {name for name, is_there in self.volumes.items() if is_there} <= volumes
        running = {id for id, one in listed.items() if one["State"] in ("running", "paused")}
        for id in running:
            self._answers(id)
        folder = self._engine.folder
        assert set(os.listdir(folder / "containers")) == set(listed)

    def _answers(self, id: str) -> None:
        """See that a container that runs has a guest that answers, or that it has ended meanwhile."""
        self._ask("POST", f"/containers/{id}/unpause")
        said = self._ask("GET", f"/containers/{id}/top")
        if said.status != 200:
            state = self._ask("GET", f"/containers/{id}/json").json["State"]
            assert state["Status"] == "exited", (said, state)

    def check_ended(self) -> None:
        """See that nothing is left of an engine that has ended."""
        end = time.monotonic() + _END_S
        while left := processes_of(self._engine.folder):
            assert time.monotonic() < end, f"processes are left: {left}"
            time.sleep(0.1)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes whose engine has a directory."""
    sign, found = f"DBT_CONTAINER_DIR={folder}".encode(), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if sign in file.read().split(b"\0"):
                    with open(f"/proc/{pid}/cmdline", "rb") as line:
                        found.append(f"{pid} {line.read().replace(bytes(1), b' ').decode(errors='replace')}")
        except OSError:
            continue
    return found
