"""Let a real dockerd do the builds of the cases, and write down what it says: python -m tests.containers.build.refresh

DOCKER_HOST is its socket, as unix:///run/docker.sock; it needs an image busybox:latest of its own architecture.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.containers.build.cases import BASE, CASES, Case
from tests.containers.build.transcript import EXPECTED, context_of, listed, shown


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))


def ask(method: str, target: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
    connection = _Connection("docker")
    connection.request(method, target, body, {"Content-Type": kind})
    response = connection.getresponse()
    return response.status, response.read()


_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: stat.S_IFREG, tarfile.CHRTYPE: stat.S_IFCHR,
}  # fmt: skip


def files_of(image: str) -> set[str]:
    """Return lines for the files of an image."""
    container = json.loads(
        ask("POST", "/v1.41/containers/create", json.dumps({"Image": image, "Cmd": ["x"]}).encode())[1]
    )
    data = ask("GET", f"/v1.41/containers/{container['Id']}/export")[1]
    ask("DELETE", f"/v1.41/containers/{container['Id']}")
    found = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            link = entry.linkname if entry.issym() else ""
            mode = _KINDS[entry.type] | entry.mode
            found.add(listed(entry.name.strip("/"), mode, (entry.uid, entry.gid), entry.size, link))
    return found


def transcript(case: Case) -> str:
    """Return what dockerd says of a case's builds, and the images that it has made."""
    parts = []
    for _ in range(case.times):
        query = urlencode({"version": "1", "rm": "1"} | case.query)
        status, body = ask("POST", f"/v1.41/build?{query}", context_of(case), "application/x-tar")
        messages = [json.loads(line) for line in body.splitlines() if line] if status == 200 else []
        image: dict[str, Any] = {}
        history: list[dict[str, Any]] = []
        for message in messages:
            if "ID" in message.get("aux", {}):
                image = json.loads(ask("GET", f"/v1.41/images/{message['aux']['ID']}/json")[1])
                history = json.loads(ask("GET", f"/v1.41/images/{message['aux']['ID']}/history")[1])
        failure = "" if status == 200 else f"{status} {json.loads(body)['message']}"
        files = files_of(image["Id"]) - files_of(BASE) if case.lists and image else ()
        parts.append(shown(messages, failure, image, history, files))
    return "".join(parts)


def main() -> None:
    for name in sys.argv[1:] or CASES:
        ask("POST", "/v1.41/images/prune?filters=" + urlencode({"": '{"dangling":["true"]}'})[1:])
        Path(EXPECTED, f"{name}.txt").write_text(transcript(CASES[name]))
        print(name)


if __name__ == "__main__":
    main()
