"""The recorder of ARM's instruction sets: flags, R15 and interworking branches."""

from __future__ import annotations

from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import CalloutTable
from isa.ir.recorder import Recorder as GenericRecorder
from isa.ir.recorder import Registers as GenericRegisters
from isa.ir.recorder import StateBits
from isa.ir.routines import RoutineTable
from isa.ir.uop import BranchKind, Uop

#: The value that R15 reads as is this many bytes ahead of the instruction (A2.3).
PC_AHEAD = 8
_PC = 15

#: The sensitive operations by name. :mod:`isa.arm.callouts` adds them: see :mod:`isa.arm.architecture`.
CALLOUTS = CalloutTable()


class Registers(GenericRegisters):
    """The registers as ``u.reg[n]``. Register 15 is the PC."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self._arm_recorder = recorder

    def __getitem__(self, number: Uop | int) -> Uop:
        index = self._recorder.value(number, 32)
        return self._arm_recorder.pc if index.number == _PC else super().__getitem__(index)

    def __setitem__(self, number: Uop | int, value: Uop | int) -> None:
        """Write a register. A write to R15 is discarded, as it is UNPREDICTABLE here; a branch is u.*_write_pc.

        choice: discarded-pc-write
        """
        index = self._recorder.value(number, 32)
        if index.number == _PC:
            self._recorder.wrote_register = True
        else:
            super().__setitem__(index, value)


class Recorder(GenericRecorder):
    """Records the uops of one ARM instruction. ``n z c v q ge`` are the flags of the CPSR."""

    n = StateBits("n", 1)
    z = StateBits("z", 1)
    c = StateBits("c", 1)
    v = StateBits("v", 1)
    q = StateBits("q", 1)
    ge = StateBits("ge", 32)

    def __init__(self) -> None:
        super().__init__(LAYOUT, CALLOUTS)
        self.reg: Registers = Registers(self)

    @property
    def pc(self) -> Uop:
        """The value that the instruction reads from R15: its own address + 8."""
        return self.address(PC_AHEAD)

    def interwork(self, target: Uop) -> None:
        """Record the first half of ``BXWritePC`` (A2.3.1): bit 0 selects Thumb, for which this processor leaves.

        An instruction that leaves must have changed nothing, so this comes before register writes, then :meth:`branch`.
        A target with bits 1:0 = 0b10 is UNPREDICTABLE; we choose to ignore bit 1. choice: branch-target-bit-1
        """
        with self.when(target.bit(0)):
            self.callout("enter_thumb", target)

    def bx_write_pc(self, target: Uop, kind: BranchKind = BranchKind.INDIRECT) -> None:
        """Record ``BXWritePC`` (A2.3.1) of an instruction that writes nothing else."""
        self.interwork(target)
        self.branch(target, kind)

    # ARMv7 interworks on loads to the PC and, in A32, on data processing to the PC. choice: pc-write-interworks
    alu_write_pc = bx_write_pc

    def undefined(self) -> None:
        """Raise an undefined instruction."""
        self.exception(InsnException.UNDEFINED)


#: Routines by name. :mod:`isa.arm.exceptions` and :mod:`isa.arm.vmsa` add them: see :mod:`isa.arm.architecture`.
ROUTINES = RoutineTable(Recorder)
routine = ROUTINES.define
