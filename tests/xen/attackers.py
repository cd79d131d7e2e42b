"""Domains of one host for tests in which some of them attack another: what they grant, map and copy."""

from __future__ import annotations

from dbt.abi.addresses import Gpa
from dbt.hypervisor.cluster import Cluster
from dbt.hypervisor.xen.host import XenHost
from tests.xen.guests import RAM, SELF, Caller

TABLE = 0x38000000
#: A page of each domain that it may grant, and places where it may map others.
PAGE, PLACE, OTHER_PLACE = RAM + 0x40000, RAM + 0x50000, RAM + 0x51000
SECRET = b"\xa5\x5a\xc3\x3c"
PERMIT, READ_ONLY = 1, 4
BY_GRANT_FROM, BY_GRANT_TO = 1, 2


class Guest(Caller):
    """A domain that does what a test says. It has its grant table mapped."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(cluster[f"domain {number}"].machine)
        self.number = number
        assert self.call(12, 7, self.put("HHIQQ", SELF, 0, 1, 0, TABLE >> 12)) == 0

    def grant(self, reference: int, to: int, page: int = PAGE, flags: int = PERMIT) -> None:
        self.put("HHI", flags, to, page >> 12, at=TABLE + 8 * reference)

    def flags(self, reference: int) -> int:
        return self.get("H", TABLE + 8 * reference)[0]

    def map(self, domain: int, reference: int, place: int = PLACE, flags: int = 2) -> tuple[int, int]:
        """Return the status and the handle."""
        form = "QIIHhIQ"
        assert self.call(20, 0, self.put(form, place, flags, reference, domain, 77, 0, 0), 1) == 0
        return self.get(form)[4:6]  # type: ignore[return-value]

    def unmap(self, handle: int, place: int = PLACE) -> int:
        assert self.call(20, 1, self.put("QQIh", place, 0, handle, 77), 1) == 0
        return self.get("QQIh")[3]

    def copy(
        self, source: tuple[int, int, int], target: tuple[int, int, int], size: int, flags: int = BY_GRANT_FROM
    ) -> int:
        """Copy bytes. Source and target are a grant or a frame, a domain and an offset."""
        form = "QHHxxxxQHHxxxxHHh"
        assert self.call(20, 5, self.put(form, *source, *target, size, flags, 77), 1) == 0
        return self.get(form)[8]

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.machine.memory.read_ram(Gpa(at), size))

    def write(self, at: int, data: bytes) -> None:
        self.machine.memory.write_ram(Gpa(at), data)


def host_of(cluster: Cluster) -> XenHost:
    assert cluster.domains is not None
    return cluster.domains.host
