"""The identity of a clone, which is a machine in the state of another one.

What a board shows of a machine's identity changes before the clone's first instruction: the addresses of its network
cards, its clock, and what its random numbers follow from. A kernel that has not begun finds other seeds in its device
tree, too, so that all its random numbers differ. What a guest that has begun has read of it already, such as the
address that its driver has noted, is in the guest's memory and stays: the guest has to be told.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

from dbt.abi.addresses import Gpa
from dbt.board.clock import END_OF_EPOCHS, insn_ns_of, ticks_per_second
from dbt.devices.virtio.net import Net

if TYPE_CHECKING:
    from dbt.devices.state import State
    from dbt.vm.machine import Machine

#: Where a kernel finds its device tree, and how that begins: a magic number, and its size.
_TREE_REGISTER, _TREE_MAGIC, _TREE_HEAD = 2, b"\xd0\x0d\xfe\xed", 8
#: The names of the devices in saved values.
_CLOCK = "clock"
_SLOTS = "virtio slots"


def store_of_clone(end: str | None, uuid: UUID) -> str | None:
    """Return the socket of a clone's XenStore, of which ``end`` is that of the other machine: beside it, if that is
    named by the machine's UUID, and else none.
    """
    if end is None:
        return None
    folder, name = os.path.split(end)
    stem, suffix = os.path.splitext(name)
    try:
        UUID(stem)
    except ValueError:
        return None
    return os.path.join(folder, f"{uuid}{suffix}")


class Identity(NamedTuple):
    """What tells a clone from the others.

    - ``uuid``: a random UUID (version 4).
    - ``rng_seed``: what its random numbers follow from, in [0, 2^63).
    - ``addresses``: of its network cards, six bytes each, unicast and locally administered.
    - ``wall_clock``: the time of day when it begins, in seconds since 1970, or None for that of the other machine.
    """

    uuid: UUID
    rng_seed: int
    addresses: tuple[bytes, ...]
    wall_clock: int | None

    @classmethod
    def of(cls, seed: int, number: int, nets: int, wall_clock: int | None = None) -> Identity:
        """Return the identity of the clone with that number, from a ``seed`` in [0, 2^63). The same arguments give the
        same one again.
        """

        def drawn(what: str, size: int) -> bytes:
            name = f"{what} {number}".encode()
            return blake2b(name, digest_size=size, key=seed.to_bytes(8, "little"), person=b"dbt clone").digest()

        addresses = [drawn(f"net {card}", 6) for card in range(nets)]
        return cls(
            UUID(bytes=drawn("uuid", 16), version=4),
            int.from_bytes(drawn("random numbers", 8), "little") >> 1,
            tuple(bytes((address[0] & 0xFC | 2, *address[1:])) for address in addresses),
            wall_clock,
        )


def with_identity(values: State, identity: Identity) -> State:
    """Return a machine's saved values, in which its identity is another one.

    Raise ValueError if the machine has not as many network cards as the identity has addresses, or if the time of day
    cannot be shown by its clock.
    """
    devices, of_machine = dict(cast("dict[str, Any]", values["devices"])), dict(cast("State", values["machine"]))
    of_machine["rng_seed"] = identity.rng_seed
    if len(identity.addresses) != values["nets"]:
        nets = cast("int", values["nets"])
        raise ValueError(f"the machine has {nets} network cards, and the identity {len(identity.addresses)} addresses")
    addresses = iter(identity.addresses)
    if _SLOTS in devices:
        transports = [
            _with_address(one, next(addresses)) if one["device_id"] == Net.device_id else one
            for one in devices[_SLOTS]["transports"]
        ]
        devices[_SLOTS] = {**devices[_SLOTS], "transports": transports}
    if identity.wall_clock is not None:
        now, insn_ns = cast("int", values["now"]), insn_ns_of(values["insn_ns"])
        epoch = identity.wall_clock - now // ticks_per_second(insn_ns)
        if not 0 <= epoch < END_OF_EPOCHS:
            raise ValueError(f"the clock cannot show {identity.wall_clock} seconds since 1970 after so long a run")
        if _CLOCK in devices:
            clock = devices[_CLOCK]
            devices[_CLOCK] = {**clock, "offset": clock["offset"] + epoch - cast("int", of_machine["epoch"])}
        of_machine["epoch"] = epoch
    return {**values, "devices": devices, "machine": of_machine}


def _with_address(transport: dict[str, Any], address: bytes) -> dict[str, Any]:
    """Return the saved values of a transport whose network card has another address."""
    card, *rest = transport["device"]
    return {**transport, "device": [{**card, "mac": address}, *rest]}


def give_seeds(machine: Machine, before: int) -> None:
    """Give a kernel that has executed nothing the seeds in its device tree that follow from the machine's random
    numbers, where it has those that follow from ``before``. So each clone of such a machine boots with others.
    """
    if machine.icount or not machine.is_kernel:
        return
    from dbt.board.virt_tree import seeds

    tree = Gpa(machine.cpu.r[_TREE_REGISTER])
    head = machine.memory.read_ram(tree, _TREE_HEAD) if machine.ram.layout.covers(tree, _TREE_HEAD) else b""
    size = int.from_bytes(head[4:], "big")
    if not head.startswith(_TREE_MAGIC) or not machine.ram.layout.covers(tree, size):
        return  # It is described by ATAGs, which have no seeds.
    data = machine.memory.read_ram(tree, size)
    for old, new in zip(seeds(before).values(), seeds(machine.options.rng_seed).values(), strict=True):
        if (at := data.find(old)) >= 0:
            machine.memory.write_ram(Gpa(tree + at), new)
