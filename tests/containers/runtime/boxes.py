"""Containers for tests: their layers, and one runtime for all tests of a module, with its event loop."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import tarfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from dbt.containers.images.layer_files import build_layer
from dbt.containers.images.tar_reader import Limits
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.disk import make_disk
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Ended, Process, Spec
from tests.containers.images.archives import archive, member

WORDS = Path(__file__).resolve().parents[3] / "guests/linux/images/words"
#: A directory with busybox-armel.tar, which tools/build_images.py makes.
_IMAGES = os.environ.get("DBT_CONTAINER_IMAGES", "")
#: Seconds after which something is taken to hang.
TIMEOUT = 120
T = TypeVar("T")

NEEDS_BUSYBOX = pytest.mark.skipif(
    not Path(_IMAGES, "busybox-armel.tar").is_file() or not _IMAGES,
    reason="DBT_CONTAINER_IMAGES is no directory with busybox-armel.tar",
)


class Said(NamedTuple):
    """What a program wrote to its two streams, and its exit code."""

    output: bytes
    errors: bytes
    code: int


async def all_of(session: Session) -> Said:
    """Read a program's output to its end."""
    streams = {1: bytearray(), 2: bytearray()}
    while (piece := await session.read()) is not None:
        streams[piece[0]] += piece[1]
    return Said(bytes(streams[1]), bytes(streams[2]), await session.wait())


async def collected(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


class Boxes:
    """Starts containers of one image, whose layers are in ``layers``, with disks in ``folder``."""

    def __init__(self, folder: Path, layers: tuple[str, ...], leases: str | None = None) -> None:
        self._folder, self.layers, self._leases = folder, layers, leases
        self._runner = asyncio.Runner()
        self.runtime = self.run(self._made())

    async def _made(self) -> Runtime:
        runtime = Runtime(self._leases)
        await runtime.prepare()
        return runtime

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine does in the event loop."""
        return self._runner.run(asyncio.wait_for(work, TIMEOUT))

    def spec(self, *argv: str, process: Process | None = None, **fields: Any) -> Spec:
        """Return the specification of a container with a new disk."""
        name = secrets.token_hex(32)
        disk = str(self._folder / f"{name[:12]}.img")
        make_disk(disk)
        base = process or Process((), ("PATH=/bin",), open_stdin=True)
        return Spec(name, "box", self.layers, disk, replace(base, argv=argv or base.argv), **fields)

    async def start(self, *argv: str, **fields: Any) -> ContainerVm:
        return await self.runtime.start(self.spec(*argv, **fields))

    async def said(self, *argv: str, **fields: Any) -> tuple[Said, Ended]:
        """Run a container to its end."""
        vm = await self.start(*argv, **fields)
        vm.main.end_input()
        return await all_of(vm.main), await vm.wait()

    def close(self) -> None:
        self.run(self.runtime.close())
        self._runner.close()


def words_layer(folder: Path) -> str:
    """Return an EROFS image with the program ``words``, and a few files about users."""
    users = "root:x:0:0::/root:/bin/words\nann:x:1000:1001::/home/ann:/bin/words\n"
    groups = "root:x:0:\nusers:x:100:ann,bob\nann:x:1001:\n"
    members = [
        *(member(name, tarfile.DIRTYPE) for name in ("bin", "etc", "proc", "sys", "dev", "tmp")),
        member("bin/words", data=WORDS.read_bytes(), mode=0o755),
        member("etc/passwd", data=users.encode()),
        member("etc/group", data=groups.encode()),
    ]
    return layer_image(folder / "words.erofs", archive(members))


def busybox_layer(folder: Path) -> str:
    """Return an EROFS image of busybox for armel."""
    return layer_image(folder / "busybox.erofs", Path(_IMAGES, "busybox-armel.tar").read_bytes())


def layer_image(path: Path, layer: bytes) -> str:
    """Return the path of the EROFS image of a layer's archive."""
    with path.open("xb+") as image:
        build_layer(io.BytesIO(layer), image, io.BytesIO(), Limits())
    return str(path)
