"""The Power State Coordination Interface, version 1.1 (ARM DEN 0022): the firmware that HVC calls on the board virt.

Function and arguments are in R0 to R3, and the answer comes in R0. The immediate of the instruction does not matter.
Answers are those of QEMU 7.2 for one processor, whose affinity is 0. Functions for 64-bit callers do not exist.
"""

from __future__ import annotations

from enum import Enum

_VERSION_1_1 = 0x10001
_NOT_SUPPORTED, _INVALID_PARAMETERS, _ALREADY_ON = -1, -2, -4
_ON = 0  # of AFFINITY_INFO
_NO_TRUSTED_OS = 2  # of MIGRATE_INFO_TYPE: there is nothing to migrate

#: The functions that exist. Version 0.1 had no numbers of its own; those that begin with 0x95 are QEMU's.
_FUNCTIONS = frozenset({
    0x84000000, 0x84000001, 0x84000002, 0x84000003, 0x84000004, 0x84000006, 0x84000008, 0x84000009, 0x8400000A,
    0x95C1BA5E, 0x95C1BA5F, 0x95C1BA60,
})  # fmt: skip
#: Of the power state that CPU_SUSPEND is given, what would mean more than this processor: QEMU's mask.
_OTHER_POWER_STATES = 0xFFFE0000


class PowerRequest(Enum):
    """What a caller wants done and gets no answer to."""

    SUSPEND = "wait for an interrupt, then answer 0"
    PROCESSOR_OFF = "switch the processor off"
    OFF = "switch the machine off"
    RESET = "reset the machine"


def call(function: int, first: int, second: int) -> int | PowerRequest:
    """Return the answer to a call with these values of R0 to R2, a signed number, or what the caller wants done."""
    match function:
        case 0x84000000:  # PSCI_VERSION
            return _VERSION_1_1
        case 0x84000001 | 0x95C1BA5E:  # CPU_SUSPEND
            return _INVALID_PARAMETERS if first & _OTHER_POWER_STATES else PowerRequest.SUSPEND
        case 0x84000002 | 0x95C1BA5F:  # CPU_OFF
            return PowerRequest.PROCESSOR_OFF
        case 0x84000003 | 0x95C1BA60:  # CPU_ON
            return _INVALID_PARAMETERS if first else _ALREADY_ON
        case 0x84000004:  # AFFINITY_INFO: everything above the lowest level is on
            return _INVALID_PARAMETERS if first and not second else _ON
        case 0x84000006:  # MIGRATE_INFO_TYPE
            return _NO_TRUSTED_OS
        case 0x84000008:  # SYSTEM_OFF
            return PowerRequest.OFF
        case 0x84000009:  # SYSTEM_RESET
            return PowerRequest.RESET
        case 0x8400000A if first in _FUNCTIONS:  # PSCI_FEATURES
            return 0
        case _:
            return _NOT_SUPPORTED
