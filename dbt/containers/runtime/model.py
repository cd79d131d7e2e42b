"""The model of what containers' processes have in memory (:mod:`dbt.hypervisor.process.originals`), and of the code
that they begin with (:mod:`dbt.engine.warm_code`).

It is the VM of a container that has no image and no program, and belongs to nobody. So it has done what each does, and
nothing of a container is in what the others share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final

from dbt.containers.network.interface import Interface, some_mac
from dbt.containers.runtime.disk import make_disk
from dbt.containers.runtime.spec import Limits, Process, RuntimeFailure, Spec

if TYPE_CHECKING:
    from dbt.containers.runtime.container_vm import ContainerVm

    _Start = Callable[[Spec], Coroutine[None, None, ContainerVm]]
    _Use = Callable[[ContainerVm], Awaitable[None]]

_log: Final = logging.getLogger(__name__)
#: How many VMs have been started when a model is made. It takes a second of a processor's time, once.
WORTH_IT: Final = 2
#: How long after the start of the last of them the model starts, so that nobody waits for it, and how long it is
#: idle before it is taken, in seconds.
_AFTER_S: Final = 1.5
_IDLE_S: Final = 2.5
#: How long there is none before each, in seconds: then a process has been forked ahead for the last one.
_BETWEEN_S: Final = 0.25
_FILES: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


async def make_model(start: _Start, keep_code: _Use, fork_ahead: _Use, take: _Use) -> None:
    """Have a model, after a while. ``start`` returns a VM that has done what a container's program waits for.
    ``keep_code`` lets others begin with its code. After that ``fork_ahead`` is told of one, so that others begin in a
    process that is there already. After that ``take`` makes the model of one, when it is idle. Nothing is left of a
    start that is cancelled.
    """
    await asyncio.sleep(_AFTER_S)
    for use in (keep_code, fork_ahead, _forked_after, partial(_take_idle, take)):  # each has what those before it gave
        await asyncio.sleep(_BETWEEN_S)
        try:
            await _use(start, use)
        except (RuntimeFailure, OSError) as error:
            _log.warning("containers share less, because there is no model: %s", error)


async def _use(start: _Start, use: _Use) -> None:
    with tempfile.TemporaryDirectory(prefix="dbt-model-") as folder:
        disk = os.path.join(folder, "disk")
        make_disk(disk)
        vm = await start(_spec(disk))
    try:
        await use(vm)
    finally:
        await vm.destroy()


async def _forked_after(vm: ContainerVm) -> None:
    """Have the process of the next VM forked after that of another one, as those of all later ones: where objects come
    to be depends on what was there before.
    """
    await asyncio.sleep(_BETWEEN_S)


async def _take_idle(take: _Use, vm: ContainerVm) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await vm.plug({0: theirs.fileno()})
        await asyncio.sleep(_IDLE_S)
        await take(vm)


def _spec(disk: str) -> Spec:
    """Return what the VM is made of. It executes when others do not."""
    network = IPv4Network("192.0.2.0/24")  # which is nobody's (RFC 5737)
    card = Interface(0, some_mac(), IPv4Address("192.0.2.2"), network, IPv4Address("192.0.2.1"))
    return Spec(
        secrets.token_hex(32),
        "model",
        (),
        disk,
        Process(("/none",)),
        limits=Limits(cpu_shares=2),
        interfaces=(card,),
        files=dict.fromkeys(_FILES, b""),
    )
