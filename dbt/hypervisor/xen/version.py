"""What the hypervisor says of itself: xen_version (xen/include/public/version.h).

Version and features are those of Xen 4.17 on ARM. Texts name this hypervisor, where Xen's have its compiler and host.
"""

from __future__ import annotations

import struct
from typing import Final

from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.interface import VERSION, Errno, HypercallError

_FEATURES = struct.Struct("<II")
#: writable_page_tables, auto_translated_physmap, memory_op_vnode_supported, ARM_SMCCC_supported, not_direct_mapped.
_FEATURE_BITS: Final = 1 << 0 | 1 << 2 | 1 << 13 | 1 << 14 | 1 << 16
_PAGE_SIZE: Final = 4096
#: By the command: the bytes that it writes, as texts of fixed sizes or as numbers.
_ANSWERS: Final[dict[int, bytes]] = {
    1: b".dbt".ljust(16, b"\0"),  # extraversion
    2: b"".ljust(64 + 16 + 32 + 32, b"\0"),  # compile_info: it was not compiled
    3: b"xen-3.0-armv7l ".ljust(1024, b"\0"),  # capabilities
    4: b"unavailable".ljust(64, b"\0"),  # changeset
    5: struct.pack("<Q", 0x00200000),  # platform_parameters: where Xen would begin
    8: bytes(16),  # guest_handle: the UUID of the domain
    9: bytes(1024),  # commandline
}


def xen_version(arguments: Arguments, command: int, handle: int) -> int:
    """Do XENVER_*. Return the result, or raise HypercallError."""
    match command:
        case 0:
            return VERSION[0] << 16 | VERSION[1]
        case 6:
            index, _ = arguments.unpack(handle, _FEATURES)
            if index:
                raise HypercallError(Errno.EINVAL)
            arguments.write(handle, _FEATURES.pack(index, _FEATURE_BITS))
        case 7 if not handle:
            return _PAGE_SIZE
        case 7:
            raise HypercallError(Errno.EINVAL)
        case 10:  # build_id
            raise HypercallError(Errno.EPERM)
        case _ if command in _ANSWERS:
            arguments.write(handle, _ANSWERS[command])
        case _:
            raise HypercallError(Errno.ENOSYS)
    return 0
