"""The codes for why a memory access fails, as in the fault status registers, and for how memory is accessed."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Fault(IntEnum):
    """Fault status codes of the short-descriptor format (table B3-23)."""

    NONE = 0
    ALIGNMENT = 0b00001
    DEBUG = 0b00010
    ACCESS_FLAG_SECTION = 0b00011
    TRANSLATION_SECTION = 0b00101
    ACCESS_FLAG_PAGE = 0b00110
    TRANSLATION_PAGE = 0b00111
    EXTERNAL = 0b01000
    DOMAIN_SECTION = 0b01001
    DOMAIN_PAGE = 0b01011
    EXTERNAL_ON_WALK_1 = 0b01100
    PERMISSION_SECTION = 0b01101
    EXTERNAL_ON_WALK_2 = 0b01110
    PERMISSION_PAGE = 0b01111


class AccessKind(IntFlag):
    """The kind of a memory access: load, store or fetch, privileged or not. A load by privileged code is 0."""

    WRITE = 1
    USER = 2
    EXECUTE = 4


#: The bits of a walk's status that are a fault.
FAULT_MASK = 0xFFFF


#: A bit beside a physical address: the translation holds for less than the 4 KiB around it.
PARTIAL = 1 << 16
#: A bit beside a physical address: the entry maps more than 4 KiB, all of which a flush of one address must forget.
BROAD = 1 << 17
#: A bit beside :data:`BROAD`: the entry is a supersection, and maps 16 MiB.
SUPERSECTION = 1 << 18
