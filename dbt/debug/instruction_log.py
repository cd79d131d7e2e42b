"""The instruction trace: one line of text for each instruction, with the registers that it changed.

    icount address  word      instruction                     changes
         7 00008010 e0811002  add r1, r1, r2                  r1=00000005
         8 00008014 e5910000  ldr r0, [r1]                    -> data abort, 00000010

``icount`` is the number of instructions retired before it. A line whose changes begin with an arrow
did not retire: it raised the exception named there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from dbt.abi.addresses import Gva
from dbt.inspector.disassembly import disassembler

if TYPE_CHECKING:
    from dbt.vm.machine import Machine

HEADER = "icount address  word      instruction                     changes\n"
_NAMES = (*(f"r{n}" for n in range(13)), "sp", "lr", "pc", "cpsr")
_PC = 15


class InstructionTrace:
    """Writes the trace to ``file``, which the caller must close. The machine calls both methods around each step."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._disassemble = disassembler()
        self._before: tuple[int, ...] = ()
        self._icount = 0
        self._word: int | None = None
        file.write(HEADER)

    def before_step(self, machine: Machine) -> None:
        self._before = (*machine.cpu.r, machine.cpu.cpsr)
        self._icount = machine.icount
        self._word = machine.peek_code(self._before[_PC])

    def after_step(self, machine: Machine, event: str) -> None:
        """Write a line. ``event`` names what kept the instruction from retiring, and is empty if nothing did."""
        pc = Gva(self._before[_PC])
        changes = self._changes((*machine.cpu.r, machine.cpu.cpsr), pc)
        if machine.icount == self._icount:
            changes = f"-> {event}" + (f" {changes}" if changes else "")
        if self._word is None:
            word, text = "--------", "(not RAM)"
        else:
            word, text = f"{self._word:08x}", self._disassemble(self._word, pc)
        self._file.write(f"{self._icount:6d} {pc:08x} {word}  {text:<31} {changes}".rstrip() + "\n")

    def _changes(self, after: tuple[int, ...], pc: Gva) -> str:
        """Return the registers that changed. The PC is among them only if it is not the next word."""
        pairs = zip(_NAMES, self._before, after, strict=True)
        changed = [(name, new) for name, old, new in pairs if old != new and name != "pc"]
        if after[_PC] not in (pc, pc + 4 & 0xFFFFFFFF):
            changed.append(("pc", after[_PC]))
        return " ".join(f"{name}={value:08x}" for name, value in changed)
