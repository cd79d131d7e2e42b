"""RUN: a program in a VM of its own, and what it has changed as a layer."""

from __future__ import annotations

import asyncio
import codecs
import os
import posixpath
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from dbt.containers.build.failures import BuildFailed
from dbt.containers.images.disk import not_kept
from dbt.containers.images.image import Layer
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.disk import make_disk
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import DEFAULT_SHM, Limits, Process, ProcessFailure, RuntimeFailure, Spec
from dbt.containers.runtime.ulimits import Ulimit
from dbt.linux.images import LinuxGuestError

_STDERR: Final = 2
_BLOCK: Final = bytes(512)
#: What docker puts before the reason why a program cannot be started.
_RUNC: Final = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
)


class Machines(Protocol):
    """What starts VMs: one with a program, and one with the files of that. ``finish`` is called after the program."""

    async def start(self, spec: Spec) -> ContainerVm: ...
    async def open_stopped(self, spec: Spec) -> ContainerVm: ...
    async def finish(self, spec: Spec) -> None: ...


class PlainMachines:
    """VMs of a runtime that are connected to nothing."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def start(self, spec: Spec) -> ContainerVm:
        return await self._runtime.start(spec)

    async def open_stopped(self, spec: Spec) -> ContainerVm:
        return await self._runtime.open_stopped(spec)

    async def finish(self, spec: Spec) -> None:
        """Nothing is left of a VM."""


@dataclass(frozen=True)
class Step:
    """A program to run: the container's id, the layers below, and its configuration with docker's names."""

    id: str
    layers: tuple[Layer, ...]
    command: tuple[str, ...]
    config: dict[str, Any]
    memory: int | None
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = DEFAULT_SHM


def new_id() -> str:
    """Return an id for a container."""
    return secrets.token_hex(32)


async def run(
    machines: Machines, step: Step, folder: str, say: Callable[[str], None], drain: Callable[[], Any]
) -> IO[bytes] | None:
    """Run a program to its end, and return what it has changed: the archive of a layer, or None if that is nothing.

    ``say`` gets what the program writes, ``drain`` is awaited before more is read. Raise BuildFailed if the program
    fails, or cannot be run.
    """
    disk = os.path.join(folder, f"build-{step.id[:12]}.img")
    spec = _spec(step, disk)
    try:
        await asyncio.to_thread(make_disk, disk)
        await _run(machines, spec, say, drain)
        return await _changes(machines, spec, folder)
    except ProcessFailure as error:
        raise BuildFailed(f"{_RUNC}{error}: unknown") from None
    except (RuntimeFailure, LinuxGuestError) as error:
        raise BuildFailed(str(error)) from None
    except OSError as error:
        raise not_kept("a container of the build", folder, error) from None
    finally:
        if os.path.exists(disk):
            os.unlink(disk)


def _spec(step: Step, disk: str) -> Spec:
    config = step.config
    process = Process(
        step.command,
        tuple(config["Env"]),
        config.get("WorkingDir") or "/",
        config.get("User") or "",
    )
    layers = tuple(layer.erofs for layer in step.layers)
    limits = Limits(memory=step.memory)
    return Spec(
        step.id,
        step.id[:12],
        layers,
        disk,
        process,
        limits=limits,
        ulimits=step.ulimits,
        shm_size=step.shm_size,
        forgotten=_volumes(config),
    )


def _volumes(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the image's volumes: a program sees one of its own, which is removed with its container."""
    paths = {posixpath.normpath(path) for path in config.get("Volumes") or () if path.startswith("/")}
    return tuple(sorted(paths - {"/"}))


async def _run(machines: Machines, spec: Spec, say: Callable[[str], None], drain: Callable[[], Any]) -> None:
    try:
        vm = await machines.start(spec)
        try:
            await _read(vm.main, say, drain)
            ended = await vm.wait()
        finally:
            await vm.stop()
    finally:
        await machines.finish(spec)
    if ended.error:
        raise BuildFailed(ended.error)
    if ended.exit_code:
        command = " ".join(spec.process.argv)
        text = f"The command '{command}' returned a non-zero code: {ended.exit_code}"
        raise BuildFailed(text, ended.exit_code)


async def _read(session: Session, say: Callable[[str], None], drain: Callable[[], Any]) -> None:
    """Tell what a program writes, errors in red."""
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
    while (piece := await session.read()) is not None:
        text = decoders[piece[0]].decode(piece[1])
        if text:
            say(f"\x1b[91m{text}\x1b[0m" if piece[0] == _STDERR else text)
            await drain()


async def _changes(machines: Machines, spec: Spec, folder: str) -> IO[bytes] | None:
    vm = await machines.open_stopped(spec)
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    try:
        async for piece in await vm.diff_layer():
            await asyncio.to_thread(file.write, piece)
        file.seek(0)
        is_empty = file.read(len(_BLOCK)) in (b"", _BLOCK)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    finally:
        await vm.stop()
    if is_empty:
        file.close()
        return None
    return file
