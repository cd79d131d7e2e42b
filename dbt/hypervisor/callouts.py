"""The sensitive operations: what the hypervisor does where an instruction says ``u.callout(name, ...)``.

One method per name in :data:`isa.uop.CALLOUTS`. Each is given the address of the instruction and the
operation's arguments, and returns its result if it has one. LeaveGuest is raised before anything has
changed. An operation that "leaves" sets ``cpu.r[15]`` to the address to go on at.
"""

from __future__ import annotations

from dbt.hypervisor.cp15 import read_register, write_register
from dbt.runtime.cpu import CpuState
from dbt.runtime.exits import LeaveGuest, ThumbEntry, Undefined, Unsupported, WaitForInterrupt
from isa.state import BANKS, PSR_A, PSR_E, PSR_F, PSR_I, PSR_MODE, PSR_T, Mode

PSR_FLAGS = 0xF8000000  # N Z C V Q
PSR_GE = 0x000F0000
USER_WRITABLE = PSR_FLAGS | PSR_GE | PSR_E
PRIVILEGED_WRITABLE = USER_WRITABLE | PSR_A | PSR_I | PSR_F | PSR_MODE
SPSR_WRITABLE = 0xFF0FFFFF
CP15 = 15


def byte_lanes(byte_mask: int) -> int:
    """The bits that a mask of bytes selects: 0b1001 to 0xFF0000FF."""
    return sum(0xFF << 8 * byte for byte in range(4) if byte_mask >> byte & 1)


class Callouts:
    """The sensitive operations of one virtual CPU."""

    def __init__(self, cpu: CpuState) -> None:
        self.cpu = cpu

    # -- program status --------------------------------------------------------------------------

    def write_cpsr(self, pc: int, value: int, byte_mask: int) -> None:
        """``CPSRWriteByInstr`` for MSR (B1.3.3)."""
        writable = USER_WRITABLE if self._in_user_mode else PRIVILEGED_WRITABLE
        self._set_cpsr(pc, self._merge(self.cpu.cpsr, value, writable & byte_lanes(byte_mask)))

    def read_spsr(self, pc: int) -> int:
        """System mode has no SPSR, and reading it is UNPREDICTABLE; we choose the CPSR. choice: spsr-of-system-mode"""
        self.require_privilege(pc)
        return self.cpu.spsr

    def write_spsr(self, pc: int, value: int, byte_mask: int) -> None:
        """``SPSRWriteByInstr`` (B1.3.3)."""
        self.require_privilege(pc)
        self.cpu.spsr = self._merge(self.cpu.spsr, value, SPSR_WRITABLE & byte_lanes(byte_mask))

    def set_mode(self, pc: int, mode: int) -> None:
        if not self._in_user_mode and mode in BANKS:  # choice: invalid-mode
            self.cpu.switch_mode(mode)

    def set_masks(self, pc: int, mask: int, value: int) -> None:
        if not self._in_user_mode:
            self.cpu["psr"] = self._merge(self.cpu["psr"], value, mask & (PSR_A | PSR_I | PSR_F))

    # -- exception return ------------------------------------------------------------------------

    def exception_return(self, pc: int, target: int) -> None:
        """In user mode it is UNPREDICTABLE; we choose an undefined instruction. choice: privileged-in-user-mode"""
        self.require_privilege(pc)
        self.return_to(pc, target, self.cpu.spsr)

    def return_to(self, pc: int, target: int, psr: int) -> None:
        self.require_privilege(pc)
        if psr & PSR_T:
            raise LeaveGuest(ThumbEntry(pc, target | 1))
        self._set_cpsr(pc, psr)
        self.cpu.r[15] = target & 0xFFFFFFFC  # choice: branch-target-bit-1

    # -- registers of other modes ----------------------------------------------------------------

    def read_user_reg(self, pc: int, number: int) -> int:
        return self.cpu.banked(number, Mode.USER)

    def write_user_reg(self, pc: int, number: int, value: int) -> None:
        self.cpu.set_banked(number, Mode.USER, value)

    def read_mode_sp(self, pc: int, mode: int) -> int:
        """No such mode is UNPREDICTABLE; we choose an undefined instruction. choice: srs-invalid-mode"""
        if mode not in BANKS:
            raise LeaveGuest(Undefined(pc))
        return self.cpu.banked(13, mode)

    def write_mode_sp(self, pc: int, mode: int, value: int) -> None:
        self.cpu.set_banked(13, mode, value)

    # -- coprocessors ----------------------------------------------------------------------------

    def coprocessor_read(self, pc: int, cp: int, opc1: int, crn: int, crm: int, opc2: int) -> int:
        if cp != CP15:
            raise LeaveGuest(Undefined(pc))
        return read_register(self.cpu, pc, (opc1, crn, crm, opc2))

    def coprocessor_write(self, pc: int, cp: int, opc1: int, crn: int, crm: int, opc2: int, value: int) -> None:
        if cp != CP15:
            raise LeaveGuest(Undefined(pc))
        write_register(self.cpu, pc, (opc1, crn, crm, opc2), value)

    # -- control ---------------------------------------------------------------------------------

    def require_privilege(self, pc: int) -> None:
        if self._in_user_mode:
            raise LeaveGuest(Undefined(pc))

    def enter_thumb(self, pc: int, target: int) -> None:  # choice: no-thumb
        raise LeaveGuest(ThumbEntry(pc, target))

    def wait_for_interrupt(self, pc: int) -> None:
        raise LeaveGuest(WaitForInterrupt(pc))

    def wait_for_event(self, pc: int) -> None:
        """The wait may end for any reason (B1.8.13); ours ends at once. choice: wfe-ends-at-once"""

    # -- what they share -------------------------------------------------------------------------

    @property
    def _in_user_mode(self) -> bool:
        return self.cpu.mode == Mode.USER

    @staticmethod
    def _merge(old: int, new: int, mask: int) -> int:
        return old & ~mask | new & mask

    def _set_cpsr(self, pc: int, psr: int) -> None:
        """Every bit that there is. choice: no-jazelle

        An invalid mode is UNPREDICTABLE; we choose to stay in the current one. choice: invalid-mode
        """
        if psr & PSR_E:  # choice: no-big-endian
            raise LeaveGuest(Unsupported(pc, "big-endian data (CPSR.E)"))
        if psr & PSR_MODE not in BANKS:
            psr = self._merge(psr, self.cpu.mode, PSR_MODE)
        self.cpu.cpsr = psr
