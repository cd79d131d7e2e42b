"""The micro VM of a container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Ended, Limits, PathStat, Process, Spec, Stats


class ContainerVm(Protocol):
    """The VM of a container. All methods belong to the event loop of its runtime.

    Each raises VmEnded if the VM has ended or ends meanwhile, and RuntimeFailure if the guest cannot do what is asked.
    """

    spec: Spec
    #: The program of the container; one that has ended at once in a VM that was opened for a stopped container.
    main: Session

    async def exec(self, process: Process) -> Session:
        """Start another program in the container. Raise ProcessFailure if that is not possible."""

    async def kill(self, number: int) -> None:
        """Send a signal to PID 1 of the container."""

    async def pause(self) -> None:
        """Let the guest stand still, at an instruction. Its time does not pass."""

    async def resume(self) -> None:
        """Let the guest go on."""

    async def stop(self) -> None:
        """End the VM: its file systems are synchronised, and what runs is killed."""

    async def wait(self) -> Ended:
        """Return how the container has ended, when its VM is gone and its disk can be used by another one. The VM ends
        by itself after PID 1 of the container.
        """

    async def get_archive(self, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """Return what is at a path, and a tar archive of it. Raise PathFailure."""

    async def stat(self, path: str) -> PathStat:
        """Return what is at a path. Raise PathFailure."""

    async def put_archive(self, path: str, tar: AsyncIterator[bytes], no_overwrite: bool = False) -> None:
        """Unpack a plain tar archive in the directory at a path. With ``no_overwrite``, a directory does not replace
        what is none, nor the other way round. Raise PathFailure.
        """

    async def changes(self) -> Sequence[tuple[int, str]]:
        """Return the paths that differ from the image: 0 was modified, 1 added, 2 deleted. They are sorted."""

    async def export(self) -> AsyncIterator[bytes]:
        """Return a tar archive of all files of the container."""

    async def diff_layer(self) -> AsyncIterator[bytes]:
        """Return what differs from the image as an OCI layer: a tar archive with whiteouts."""

    async def stats(self) -> Stats:
        """Return what the container uses."""

    async def top(self, ps_args: str = "") -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Return the columns of ps(1) and a row for each process. ``ps_args`` chooses among -ef, aux and -o LIST."""

    async def update(self, limits: Limits) -> None:
        """Give the container other limits."""
