"""The machines of a cluster that are domains of one host of Xen: they share pages, event channels and XenStore.

They execute one after another in each quantum, in the order in which they were added, because one of them may do
something to another that stands still. At the end of the quantum they stand together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from dbt.hypervisor.cluster.network import US
from dbt.hypervisor.xen.host import XenHost
from dbt.hypervisor.xen.toolstack import SharedDevice

if TYPE_CHECKING:
    from dbt.hypervisor.cluster.node import Node

_LARGEST_US: Final = 10**6


class ClusterDomains:
    """The domains, with numbers from 1 on. ``quantum_us`` is for how long one of them executes, in microseconds, and so
    how long it takes at most until another one notices what it does.

    By default each has a core of its own: all execute for the whole quantum of their time. With ``share_core`` they
    have one together, in windows of equal length, one in each quantum, as Xen's scheduler for ARINC 653 gives them.
    Time goes on for a domain outside of its window, too: events become due then, and what it could have executed is
    stolen from it. A window that its domain does not use is nobody's.
    """

    def __init__(self, quantum_us: int, share_core: bool = False) -> None:
        if not isinstance(quantum_us, int) or isinstance(quantum_us, bool) or not 1 <= quantum_us <= _LARGEST_US:
            raise ValueError(
                f"domains execute for {quantum_us!r} us in turn, which is no whole number from 1 to {_LARGEST_US}"
            )
        self.quantum_us, self.share_core = quantum_us, share_core
        self.host = XenHost()
        self._nodes: dict[int, Node] = {}

    @property
    def quantum_ns(self) -> int:
        return self.quantum_us * US

    def join(self, node: Node) -> None:
        """Let a machine be a domain, if its board is one. Raise StateError if it was another one already."""
        if node.machine.board.hypervisor is not None:
            number = len(self._nodes) + 1
            node.machine.join_host(self.host, number)
            self._nodes[number] = node

    def number_of(self, name: str) -> int:
        """Return the number of the domain of that name. Raise ValueError if there is none."""
        for number, node in self._nodes.items():
            if node.name == name:
                return number
        raise ValueError(f"there is no domain {name!r:.100}")

    def share(
        self,
        kind: str,
        front: str,
        back: str,
        number: int,
        front_nodes: Mapping[str, str] | None = None,
        back_nodes: Mapping[str, str] | None = None,
    ) -> None:
        """Give the domain ``front`` a device that the domain ``back`` serves, when both are on: a disk (``vbd``) or a
        network card (``vif``). Nodes that only one kind of device has are added to XenStore's. Raise ValueError.
        """
        numbers = self.number_of(front), self.number_of(back)
        device = SharedDevice(kind, *numbers, number, dict(front_nodes or {}), dict(back_nodes or {}))
        self.host.toolstack.devices.append(device)

    @property
    def nodes(self) -> Iterable[Node]:
        """The machines that are domains, in their order."""
        return self._nodes.values()

    def begin(self) -> None:
        """Notice what was done to the machines between two runs."""
        for number in self._nodes:
            self.host.has_changed(number)

    def advance(self, end_ns: int) -> None:
        """Execute all of them up to a time, one after another."""
        if self.share_core:
            self._advance_on_one_core(end_ns)
            return
        for number, node in self._nodes.items():
            if node.stands_still(end_ns):
                node.wait_until(end_ns)
                continue
            node.advance(end_ns)
            self.host.has_changed(number)
            if number < len(self._nodes):  # after the last one they stand together
                self.host.agree_on_pages()

    def _advance_on_one_core(self, end_ns: int) -> None:
        there = [(number, node) for number, node in self._nodes.items() if not node.is_over]
        if not there:
            return
        start = max(end_ns - self.quantum_ns, min(node.now_ns for _, node in there))
        edges = [start + (end_ns - start) * place // len(there) for place in range(len(there) + 1)]
        for (number, node), begin, end in zip(there, edges, edges[1:], strict=False):
            node.stand_by(begin)
            node.get_core()
            if node.stands_still(end):
                node.wait_until(end)
            else:
                node.advance(end)
            node.stand_by(end_ns)
            self.host.has_changed(number)
            if end < end_ns:  # after the last one they stand together
                self.host.agree_on_pages()

    def stand_together(self) -> None:
        """Let what they have done come to each other: all have executed up to the same time."""
        for number, node in self._nodes.items():
            if node.is_over and number in self.host.domains:
                self.host.leave(number)
        self.host.stand_together()
        for node in self._nodes.values():
            node.look_for_events()

    def shared_devices(self) -> list[dict[str, Any]]:
        """Return what :meth:`share` was given, as JSON has it."""
        return [asdict(device) for device in self.host.toolstack.devices]

    def go_to(self, shared_devices: list[dict[str, Any]]) -> None:
        """Stand where the machines stand, whose states are from elsewhere. Raise StateError if these do not belong
        together, or ValueError or TypeError for devices that cannot be.
        """
        self.host.toolstack.devices = [SharedDevice(**device) for device in shared_devices]
        there = {number: node.machine.board.hypervisor for number, node in self._nodes.items() if not node.is_over}
        self.host.go_to({number: domain for number, domain in there.items() if domain is not None})
