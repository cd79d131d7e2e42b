"""Disks for slots that were empty when a machine was saved.

Virtio-mmio has no hotplug: a machine that is to get disks later has them from the beginning, with no sectors. One that
goes on from its state may have real disks there. Its guest hears that the size has changed, before anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from dbt.devices.receivers import numbered_name
from dbt.devices.virtio.block import Block
from dbt.host.disk_files import NoFile

if TYPE_CHECKING:
    from dbt.devices.state import State
    from dbt.host.disk_media import OpenDrive

_SLOTS = "virtio slots"


def fill_slots(values: State, disks: Sequence[OpenDrive], saved: Sequence[State]) -> tuple[State, list[str]]:
    """Return a machine's saved values in which the slots that are empty there and filled now have these disks, of which
    ``saved`` is what a machine that goes on has to find; and the names of the receivers that tell the guest so.

    The saved values may be anything: what is no empty slot stays, and is refused as what it is.
    """
    before = values.get("drives")
    if type(before) is not list or len(before) != len(disks):
        return values, []
    filled = [
        number
        for number, (was, one) in enumerate(zip(before, disks, strict=True))
        if not one.drive.is_empty and was == _empty(one.drive.read_only)
    ]
    if not filled:
        return values, []
    try:
        devices = dict(cast("dict[str, Any]", values["devices"]))
        transports = list(devices[_SLOTS]["transports"])
        blocks = [at for at, one in enumerate(transports) if one["device_id"] == Block.device_id]
        for number in filled:
            at = blocks[number]
            block, *rest = transports[at]["device"]
            block = {**block, "medium": [disks[number].medium.save()]}
            transports[at] = {**transports[at], "device": [block, *rest]}
        devices[_SLOTS] = {**devices[_SLOTS], "transports": transports}
    except (KeyError, TypeError, IndexError, ValueError):
        return values, []
    drives: list[Any] = [saved[number] if number in filled else was for number, was in enumerate(before)]
    return {**values, "devices": devices, "drives": drives}, [numbered_name(Block.receiver, at) for at in filled]


def _empty(read_only: bool) -> State:
    return {"read_only": read_only, "snapshot": False, "version": NoFile().version()}
