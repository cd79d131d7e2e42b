"""The files of containers: copied in and out, compared with the image, exported, and made an image of."""

from __future__ import annotations

import base64
import errno
import stat
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import msgspec

from dbt.containers.engine.committing import CommitWish, commit
from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, EngineError, NotFound
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.spool import pieces_of, plain, with_room
from dbt.containers.engine.timestamps import text_of
from dbt.containers.runtime.spec import PathFailure, PathStat
from dbt.daemon.http_messages import Answer, Response, Stream

_TAR = "application/x-tar"
_STAT = "X-Docker-Container-Path-Stat"
_NS = 10**9
#: Bits of modes as Go has them (io/fs), by those of stat(2).
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def archive_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Archives(engine)
    one = "/containers/{id}"
    return [
        Route("HEAD", f"{one}/archive", api.stat),
        Route("GET", f"{one}/archive", api.get),
        Route("PUT", f"{one}/archive", api.put, has_stream=True),
        Route("GET", f"{one}/changes", api.changes),
        Route("GET", f"{one}/export", api.export),
        Route("POST", "/commit", api.commit),
    ]


class _Archives:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, call: Call) -> Container:
        return self._engine.containers.find(call.parts["id"])

    async def stat(self, call: Call) -> Answer:
        container, path = self._find(call), _path(call)
        async with container.vm_with_files() as vm:
            try:
                found = await vm.stat(path)
            except PathFailure as failure:
                raise _path_error(call, path, failure) from None
        return Response(200, b"", "", headers={_STAT: _stat_header(found)})

    async def get(self, call: Call) -> Answer:
        container, path = self._find(call), _path(call)
        async with AsyncExitStack() as stack:
            vm = await stack.enter_async_context(container.vm_with_files())
            try:
                found, pieces = await vm.get_archive(path)
            except PathFailure as failure:
                raise _path_error(call, path, failure) from None
            kept = stack.pop_all()

        async def carry() -> AsyncGenerator[bytes, None]:
            async with kept:
                async for piece in pieces:
                    yield piece

        return Stream(carry(), _TAR, {_STAT: _stat_header(found)})

    async def put(self, call: Call) -> Answer:
        container, path = self._find(call), _path(call)
        async with container.vm_with_files() as vm:
            is_mounted = container.is_mounted(path)
            if container.record.definition.host.readonly_rootfs and not is_mounted:
                raise EngineError("container rootfs is marked read-only")
            pieces = plain(pieces_of(call.body))
            try:
                await vm.put_archive(
                    path,
                    pieces if is_mounted else with_room(pieces, container.folder),
                    call.flag("noOverwriteDirNonDir"),
                )
            except PathFailure as failure:
                if failure.error == errno.ENOTDIR:
                    raise BadParameter("extraction point is not a directory") from None
                raise _path_error(call, path, failure) from None
        return Response(200, b"", "")

    async def changes(self, call: Call) -> Answer:
        async with self._find(call).vm_with_files() as vm:
            found = await vm.changes()
        return json_answer([{"Path": path, "Kind": kind} for kind, path in found] or None)

    async def export(self, call: Call) -> Answer:
        container = self._find(call)
        async with AsyncExitStack() as stack:
            vm = await stack.enter_async_context(container.vm_with_files())
            pieces = await vm.export()
            kept = stack.pop_all()
        container.tell("export")

        async def carry() -> AsyncGenerator[bytes, None]:
            async with kept:
                async for piece in pieces:
                    yield piece

        return Stream(carry(), "application/octet-stream")

    async def commit(self, call: Call) -> Answer:
        container = self._engine.containers.find(call.text("container"))
        wish = CommitWish(
            call.text("repo"),
            call.text("tag"),
            call.text("comment"),
            call.text("author"),
            call.texts("changes"),
            call.flag("pause", default=True),
        )
        with self._engine.adding_layers():
            image = await commit(self._engine, container, wish)
        return json_answer({"Id": image.id}, 201)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise BadParameter("bad parameter: pathcannot be empty")
    return path


def _path_error(call: Call, path: str, failure: PathFailure) -> Exception:
    if failure.error in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"Could not find the file {path} in container {call.parts['id']}")
    return BadParameter(str(failure))


def _stat_header(found: PathStat) -> str:
    """Return what docker says of a path, in a header: JSON in base64."""
    mode = found.mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(found.mode), 0)
    for bit, go_bit in _GO_BITS:
        mode |= go_bit if found.mode & bit else 0
    value = {
        "name": found.name,
        "size": found.size,
        "mode": mode,
        "mtime": text_of(found.mtime * _NS),
        "linkTarget": found.link,
    }
    return base64.b64encode(msgspec.json.encode(value)).decode("ascii")
