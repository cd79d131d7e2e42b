"""The exceptions: which mode handles each, where its vector is, and what it masks (ARM ARM B1.8)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from isa.arm.state import PSR_A, PSR_F, PSR_I, Mode


class ExceptionKind(Enum):
    RESET = "reset"
    UNDEFINED = "undefined instruction"
    SUPERVISOR_CALL = "supervisor call"
    PREFETCH_ABORT = "prefetch abort"
    DATA_ABORT = "data abort"
    IRQ = "interrupt"
    FIQ = "fast interrupt"


class InsnException(Enum):
    """The exceptions that an instruction raises by itself (ARM ARM B1.8)."""

    UNDEFINED = "undefined"
    SUPERVISOR_CALL = "supervisor call"
    BREAKPOINT = "breakpoint"
    HYPERVISOR_CALL = "hypervisor call"
    SECURE_MONITOR_CALL = "secure monitor call"


class Vector(NamedTuple):
    """How an exception is taken: the ``mode`` that handles it, the ``offset`` of its vector, and the bits of the CPSR
    that it ``masks``. LR is set to an address plus ``link``.
    """

    mode: Mode
    offset: int
    link: int
    masks: int


#: ``link`` is added to the address of the instruction at fault, or of the SVC or BKPT (which is a prefetch abort), and
#: for interrupts to that of the next instruction to execute (B1.8.3, table B1-7).
VECTORS: Mapping[ExceptionKind, Vector] = {
    ExceptionKind.RESET: Vector(Mode.SUPERVISOR, 0x00, 0, PSR_I | PSR_F | PSR_A),
    ExceptionKind.UNDEFINED: Vector(Mode.UNDEFINED, 0x04, 4, PSR_I),
    ExceptionKind.SUPERVISOR_CALL: Vector(Mode.SUPERVISOR, 0x08, 4, PSR_I),
    ExceptionKind.PREFETCH_ABORT: Vector(Mode.ABORT, 0x0C, 4, PSR_I | PSR_A),
    ExceptionKind.DATA_ABORT: Vector(Mode.ABORT, 0x10, 8, PSR_I | PSR_A),
    ExceptionKind.IRQ: Vector(Mode.IRQ, 0x18, 4, PSR_I | PSR_A),
    ExceptionKind.FIQ: Vector(Mode.FIQ, 0x1C, 4, PSR_I | PSR_F | PSR_A),
}
HIGH_VECTORS = 0xFFFF0000
