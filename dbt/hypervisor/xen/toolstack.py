"""The toolstack, where one guest serves another one's device: the nodes of XenStore by which both find each other.

The guest with the back end is a *driver domain*. The nodes are those that libxl makes
(docs/misc/xenstore-paths.pandoc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dbt.hypervisor.xen.interface import BACKEND_DOMAIN
from dbt.hypervisor.xen.store.tree import Tree, check_path

#: XenbusStateInitialising and XenbusStateClosing.
_INITIALISING, _CLOSING = "1", "5"
#: The kinds of devices, as XenStore has them: disks, and network cards.
KINDS: Final = ("vbd", "vif")


@dataclass(frozen=True)
class SharedDevice:
    """A device of the domain ``front``, which the domain ``back`` serves. ``number`` is its number among devices of its
    ``kind``. ``front_nodes`` and ``back_nodes`` say more to one of them, by the names of nodes.

    Raise ValueError for a kind that is none, and StoreError for a name that no node can have.
    """

    kind: str
    front: int
    back: int
    number: int
    front_nodes: Mapping[str, str] = field(default_factory=dict)
    back_nodes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a device between domains is one of {', '.join(KINDS)}, and not {self.kind!r:.50}")
        if self.front == self.back:
            raise ValueError(f"the domain {self.front} cannot serve its own device {self.kind} {self.number}")
        if not all(isinstance(one, int) and 0 < one < 1 << 15 for one in (self.front, self.back)):
            raise ValueError("a device is between two domains of guests")
        if not isinstance(self.number, int) or not 0 <= self.number < 1 << 29:
            raise ValueError(f"a device has a number from 0 on, and not {self.number!r:.50}")
        for value in (*self.front_nodes.values(), *self.back_nodes.values()):
            if not isinstance(value, str):
                raise ValueError(f"a node has a text, and not {value!r:.50}")
        for name in (*self.front_nodes, *self.back_nodes):
            check_path(f"/{name}")

    @property
    def front_path(self) -> str:
        return f"/local/domain/{self.front}/device/{self.kind}/{self.number}"

    @property
    def back_path(self) -> str:
        return f"/local/domain/{self.back}/backend/{self.kind}/{self.front}/{self.number}"


class Toolstack:
    """Makes the nodes of devices between guests, in ``tree``. ``changed`` is told the paths of nodes that change."""

    def __init__(self, tree: Callable[[], Tree], changed: Callable[[str], None]) -> None:
        self._tree, self._changed = tree, changed
        self.devices: list[SharedDevice] = []

    def connect(self, number: int, others: Iterable[int]) -> None:
        """The domain ``number`` is on, as ``others`` are: give it its devices, as far as the other half is there."""
        there = {number, *others}
        for device in self.devices:
            if number in (device.front, device.back) and {device.front, device.back} <= there:
                self._make(device)

    def disconnect(self, number: int) -> None:
        """The domain ``number`` is gone: say so to whom it had a device with."""
        for device in self.devices:
            if number == device.front and device.back_path in self._tree().values:
                self._write(f"{device.back_path}/online", "0")
                self._write(f"{device.back_path}/state", _CLOSING)
            if number == device.back and device.front_path in self._tree().values:
                self._remove(device.front_path)

    def _make(self, device: SharedDevice) -> None:
        for path in (device.front_path, device.back_path):
            if path in self._tree().values:
                self._remove(path)
        above = f"/local/domain/{device.back}/backend"
        for path in (above, f"{above}/{device.kind}", f"{above}/{device.kind}/{device.front}"):
            self._own(path, device.back, None)
        self._own(device.back_path, device.back, device.front)
        self._own(device.front_path, device.front, device.back)
        back = {"frontend": device.front_path, "frontend-id": str(device.front), "online": "1", **device.back_nodes}
        front = {"backend": device.back_path, "backend-id": str(device.back), **device.front_nodes}
        for path, nodes in ((device.back_path, back), (device.front_path, front)):
            for name, value in nodes.items():
                self._tree().write(BACKEND_DOMAIN, f"{path}/{name}", value.encode())
        for path in (device.back_path, device.front_path):  # which begins both halves
            self._write(f"{path}/state", _INITIALISING)

    def _own(self, path: str, owner: int, reader: int | None) -> None:
        """Make a node that a domain owns, and another one may read."""
        self._tree().make(BACKEND_DOMAIN, path)
        readers = "" if reader is None else f"r{reader}\0"
        self._tree().set_permissions(BACKEND_DOMAIN, path, f"n{owner}\0{readers}".encode())

    def _write(self, path: str, value: str) -> None:
        self._tree().write(BACKEND_DOMAIN, path, value.encode())
        self._changed(path)

    def _remove(self, path: str) -> None:
        self._tree().removed.clear()
        self._tree().remove(BACKEND_DOMAIN, path)
        self._changed(path)
