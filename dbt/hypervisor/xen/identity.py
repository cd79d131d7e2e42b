"""Which domain of its host a guest is, and the other domains there.

A machine by itself is domain 1, and there is only the domain of the back ends beside it. Machines of a cluster can be
domains of one host (:mod:`dbt.hypervisor.xen.host`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.devices.shared import shared
from dbt.devices.state import Stateful, Wiring, Word
from dbt.hypervisor.xen.interface import (
    BACKEND_DOMAIN,
    FIRST_RESERVED_DOMAIN,
    GUEST_DOMAIN,
    SELF,
    Errno,
    HypercallError,
)

if TYPE_CHECKING:
    from dbt.hypervisor.xen.domain import XenDomain
    from dbt.hypervisor.xen.host import XenHost


@shared
@dataclass(eq=False)
class Identity(Stateful):
    """The number of a domain, and its host, if other guests are there."""

    host: Wiring[XenHost | None] = None
    number: Word = GUEST_DOMAIN

    def is_possible(self) -> bool:
        return BACKEND_DOMAIN < self.number < FIRST_RESERVED_DOMAIN

    def is_self(self, domain: int) -> bool:
        """Return True if the guest names itself."""
        return domain in (SELF, self.number)

    def other(self, domain: int) -> XenDomain | None:
        """Return another guest's domain, or None if there is none of this number. It may be changed then."""
        if self.host is None or domain == self.number:
            return None
        self.host.has_changed(domain)
        return self.host.domains.get(domain)

    def check_self(self, domain: int) -> None:
        """Raise HypercallError unless a domain is the guest itself: it is not privileged."""
        if not self.is_self(domain):
            there = domain == BACKEND_DOMAIN or self.other(domain) is not None
            raise HypercallError(Errno.EPERM if there else Errno.ESRCH)
