"""The runtime: it starts the VMs of containers."""

from __future__ import annotations

from typing import Protocol

from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import Spec


class Runtime(Protocol):
    """Starts the VMs of containers, which belong to one event loop."""

    async def start(self, spec: Spec) -> ContainerVm:
        """Start a container's VM. Its program has been executed when this returns. Raise ProcessFailure if it cannot
        be, and RuntimeFailure if there can be no VM.
        """

    async def open_stopped(self, spec: Spec) -> ContainerVm:
        """Start a VM with the files of a container that does not run, for archives, changes, export and commit. It has
        no program, and ends by :meth:`ContainerVm.stop`.
        """

    async def attach_again(self, spec: Spec) -> ContainerVm | None:
        """Return the VM of a container whose daemon was killed, or None if there is none any more."""

    async def close(self) -> None:
        """End all VMs."""
