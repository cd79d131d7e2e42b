"""The machines of a cluster that are domains of one host of Xen: they share pages, event channels and XenStore.

They execute one after another in each quantum, in the order in which they were added, because one of them may do
something to another that stands still. At the end of the quantum they stand together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dbt.hypervisor.cluster.network import US
from dbt.hypervisor.xen.host import XenHost

if TYPE_CHECKING:
    from dbt.hypervisor.cluster.node import Node

_LARGEST_US: Final = 10**6


class ClusterDomains:
    """The domains, with numbers from 1 on. ``quantum_us`` is for how long one of them executes, in microseconds, and so
    how long it takes at most until another one notices what it does.
    """

    def __init__(self, quantum_us: int) -> None:
        if not isinstance(quantum_us, int) or isinstance(quantum_us, bool) or not 1 <= quantum_us <= _LARGEST_US:
            raise ValueError(
                f"domains execute for {quantum_us!r} us in turn, which is no whole number from 1 to {_LARGEST_US}"
            )
        self.quantum_us = quantum_us
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

    @property
    def nodes(self) -> Iterable[Node]:
        """The machines that are domains, in their order."""
        return self._nodes.values()

    def stand_together(self) -> None:
        """Let what they have done come to each other: all have executed up to the same time."""
        for number, node in self._nodes.items():
            if node.is_over and number in self.host.domains:
                self.host.leave(number)
        self.host.stand_together()
        for node in self._nodes.values():
            node.look_for_events()

    def go_to(self) -> None:
        """Stand where the machines stand, whose states are from elsewhere. Raise StateError if these do not belong
        together.
        """
        there = {number: node.machine.board.hypervisor for number, node in self._nodes.items() if not node.is_over}
        self.host.go_to({number: domain for number, domain in there.items() if domain is not None})
