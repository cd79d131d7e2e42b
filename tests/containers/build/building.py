"""Builds of tests: a store with busybox, and what a build of a case says and makes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from dbt.containers.build.builds import build
from dbt.containers.build.options import read_options
from dbt.containers.build.running import Machines
from dbt.containers.images.errors import ImageError
from dbt.containers.images.history import history
from dbt.containers.images.image import Image
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from dbt.containers.images.view import FilesView
from tests.containers.build.cases import Case
from tests.containers.build.transcript import context_of, listed, shown
from tests.containers.images.archives import archive, config, member

T = TypeVar("T")
_BUSYBOX = Path(os.environ.get("DBT_CONTAINER_IMAGES", ""), "busybox-armel.tar")
HAS_BUSYBOX = bool(os.environ.get("DBT_CONTAINER_IMAGES")) and _BUSYBOX.is_file()


def small_image() -> bytes:
    """Return an archive with what builds without programs look at."""
    folders = [member(name, tarfile.DIRTYPE) for name in ("etc", "bin", "dev")]
    link = member("lib", tarfile.SYMTYPE, linkname="usr/lib")
    users = member("etc/passwd", data=b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    groups = member("etc/group", data=b"root:x:0:\nstaff:x:50:\nsomebody:x:12345:ab\n")
    usr = [member(name, tarfile.DIRTYPE) for name in ("usr", "usr/lib", "tmp")]
    usr[-1][0].mode = 0o1777
    return archive([*folders, *usr, link, users, groups])


class Build:
    """Builds in a store of its own."""

    def __init__(self, folder: Path, machines: Machines | None = None, base: bytes | None = None) -> None:
        self.store = ImageStore(str(folder / "store"))
        self.folder = folder / "underway"
        self.folder.mkdir()
        self._machines = machines
        base = base or (_BUSYBOX.read_bytes() if machines else small_image())
        layer = self.store.add_layer(io.BytesIO(base))
        fields = {"architecture": "arm", "os": "linux", "config": {}, "variant": "v5"}
        document = json.loads(config(base)) | fields
        assert document["rootfs"]["diff_ids"] == [layer.diff_id]
        document["history"] = [{"created": "2026-01-01T00:00:00Z", "comment": "Imported from -"}]
        self.base = self.store.add_image(json.dumps(document).encode(), ["busybox:latest"])

    async def messages(self, context: bytes, query: dict[str, str]) -> list[dict[str, Any]]:
        async def pieces() -> AsyncIterator[bytes]:
            for place in range(0, len(context), 5000):
                yield context[place : place + 5000]

        options = read_options({name: [value] for name, value in query.items()})
        registries = Registries(self.store, str(self.folder))
        machines: Any = self._machines
        made = build(self.store, machines, registries, str(self.folder), pieces(), options)
        return [message async for message in made]

    def image_of(self, messages: list[dict[str, Any]]) -> Image | None:
        ids = [message["aux"]["ID"] for message in messages if "aux" in message]
        return self.store.by_id(ids[-1]) if ids else None

    async def transcript(self, case: Case) -> str:
        """Return what a case's builds say, in the form of what dockerd says."""
        parts = []
        for _ in range(case.times):
            failure, messages = "", []
            try:
                messages = await self.messages(context_of(case), {"version": "1", "rm": "1"} | case.query)
            except ImageError as error:
                failure = f"{error.status} {error}"
            image, rows = self.image_of(messages), []
            described: dict[str, Any] = {}
            if image is not None:
                document = image.json()
                described = {"Config": document["config"], "Author": document.get("author", "")}
                described["RootFS"] = {"Layers": document["rootfs"]["diff_ids"]}
                rows = [{"CreatedBy": row.created_by, "Comment": row.comment} for row in history(self.store, image)]
            files = _files(image) - _files(self.base) if case.lists and image else ()
            parts.append(shown(messages, failure, described, rows, files))
        return "".join(parts)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)


def _files(image: Image) -> set[str]:
    with FilesView(image.layers) as files:
        return {
            listed(path.strip("/"), one.mode, (one.uid, one.gid), one.size, one.link) for path, one in files.walk("/")
        }
