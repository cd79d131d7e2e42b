"""The files of a container that does not run: a VM without a program, for as long as somebody needs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.spec import Spec

#: How long such a VM stays for who comes next, in seconds: docker cp asks several times.
_STAY_S: Final = 3.0


class StoppedFiles:
    """Opens VMs of a container's files. ``spec`` returns the container's specification."""

    def __init__(self, runtime: Runtime, spec: Callable[[], Spec]) -> None:
        self._runtime = runtime
        self._spec = spec
        self._lock = asyncio.Lock()
        self._vm: ContainerVm | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[ContainerVm]:
        """Have a VM with the files. One at a time has it. Raise RuntimeFailure."""
        async with self._lock:
            self._stay()
            if self._vm is None or self._vm.is_ending:
                self._vm = await self._runtime.open_stopped(self._spec())
            try:
                yield self._vm
            finally:
                self._closing = asyncio.get_running_loop().call_later(_STAY_S, self._begin_closing)

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Wait until nobody has such a VM, and let there be none."""
        async with self._lock:
            self._stay()
            await self._close()
            yield

    def _stay(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _begin_closing(self) -> None:
        task = asyncio.get_running_loop().create_task(self._close_if_unused())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_if_unused(self) -> None:
        if not self._lock.locked():
            async with self._lock:
                await self._close()

    async def _close(self) -> None:
        vm, self._vm = self._vm, None
        if vm is not None:
            await vm.stop()
            await vm.gone()
