"""An engine as each scene finds it: one image, ``busybox``, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.containers.golden.raw_api import Answer, request

IMAGE = "busybox:latest"
#: What the image has besides its files.
CHANGES = ('CMD ["sh"]', "ENV PATH=/bin")
_API = "/v1.41"
_KEPT_NETWORKS = ("bridge", "host", "none")


def tidy(socket: str, archive: Path) -> None:
    """Remove everything from an engine but the image of the files in ``archive``, which is made if there is none."""
    for container in _json(socket, "/containers/json?all=1"):
        _good(request(socket, "DELETE", f"{_API}/containers/{container['Id']}?force=1&v=1"))
    for volume in _json(socket, "/volumes")["Volumes"] or ():
        _good(request(socket, "DELETE", f"{_API}/volumes/{volume['Name']}?force=1"))
    for network in _json(socket, "/networks"):
        if network["Name"] not in _KEPT_NETWORKS:
            _good(request(socket, "DELETE", f"{_API}/networks/{network['Id']}"))
    has_image = False
    for image in _json(socket, "/images/json"):
        if image["RepoTags"] == [IMAGE]:
            has_image = True
        else:
            request(socket, "DELETE", f"{_API}/images/{image['Id']}?force=1")
    if not has_image:
        changes = "".join(f"&changes={quote(change)}" for change in CHANGES)
        target = f"{_API}/images/create?fromSrc=-&repo=busybox&tag=latest{changes}"
        _good(request(socket, "POST", target, archive.read_bytes(), "application/x-tar"))


def _json(socket: str, target: str) -> Any:
    return json.loads(_good(request(socket, "GET", _API + target)).body)


def _good(answer: Answer) -> Answer:
    if answer.status >= 400 or b"errorDetail" in answer.body:
        raise RuntimeError(f"status {answer.status}: {answer.body.decode(errors='replace')}")
    return answer
