"""Numbers and places of Xen's interface for guests on 32-bit ARM, as Xen 4.17 has them (xen/include/public).

On ARM, xen_ulong_t, xen_pfn_t and guest handles have 64 bits in structures. A handle is a guest virtual address, of
which Xen on 32-bit ARM uses the lower 32 bits.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE

#: The immediate of the HVC that is a hypercall; its number is in R12, its arguments in R0 to R4, its result in R0.
HYPERCALL_IMMEDIATE: Final = 0xEA1
VERSION: Final = (4, 17)

#: The domain of the back ends, the first guest's, and how a domain names itself.
BACKEND_DOMAIN, GUEST_DOMAIN, SELF = 0, 1, 0x7FF0
#: Numbers from here on are no domains.
FIRST_RESERVED_DOMAIN: Final = 0x7FF0

#: Where the toolstack puts things (xen/include/public/arch-arm.h).
RAM_BASE: Final = Gpa(0x40000000)
DISTRIBUTOR, DISTRIBUTOR_SIZE = Gpa(0x03001000), 0x1000
CPU_INTERFACE, CPU_INTERFACE_SIZE = Gpa(0x03002000), 0x2000
GRANT_REGION, GRANT_REGION_SIZE = Gpa(0x38000000), 0x1000000
MAGIC_PAGES: Final = Gpa(0x39000000)
CONSOLE_PAGE, STORE_PAGE = MAGIC_PAGES, Gpa(MAGIC_PAGES + PAGE_SIZE)
#: The page that has the shared information until the guest says where it wants it. In Xen it has no address then.
FIRST_SHARED_PAGE: Final = Gpa(MAGIC_PAGES + 4 * PAGE_SIZE)
#: The hypervisor's own pages in a guest whose kernel runs in user mode. Any other has there what was in pages that it
#: has no longer.
PV_PAGES: Final = Gpa(MAGIC_PAGES + 6 * PAGE_SIZE)
MAGIC_SIZE: Final = 12 * PAGE_SIZE
#: The private interrupt of the event channels.
EVENT_INTERRUPT: Final = 31
#: The frames that a grant table can have.
MAX_GRANT_FRAMES: Final = 64


class Errno(IntEnum):
    """Xen's error numbers (xen/include/public/errno.h). A hypercall returns them negated."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    ENXIO = 6
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    EINVAL = 22
    ENOSPC = 28
    ENOSYS = 38
    EOPNOTSUPP = 95


class HypercallError(Exception):
    """Ends a hypercall with an error number as its result."""

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno.name)
        self.errno = errno


class Request(Enum):
    """What a hypercall wants of the machine, beside its result."""

    DEPRIVILEGE = "let the monitor begin, with R0 to R5; the kernel is in user mode from then on"
    BLOCK = "wait for an event or an interrupt; the result is 0"
    AGAIN = "execute the hypercall again, with the arguments that it has changed"
    POWER_OFF = "switch the machine off"
    REBOOT = "reset the machine"
    CRASH = "stop: the guest says that it has crashed"
