"""Unicorn as an oracle, which runs a case and gives its outcome in the same terms as a tier.

Registers go in and out through the library's batch calls on arrays of our own, because its Python
wrapper for them takes 18 us a call. Every case starts from one saved context, so that nothing
(the exclusive monitor, a bank) is left over from the last one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import unicorn.arm_const as arm
from unicorn import UC_ARCH_ARM, UC_HOOK_INTR, UC_MODE_ARM, Uc, UcError
from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import uclib

from isa.arm.state import BANKS, PSR_MODE, PSR_T, Mode
from tests.oracle.cases.case import BANK_MODES, CODE, DEFAULT_BANKS, PSR_BITS, RAM_SIZE, Case, Outcome, default_ram

_GENERAL = [arm.UC_ARM_REG_R0 + n for n in range(13)] + [arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR]
_ABORTS = (
    const.UC_ERR_READ_UNMAPPED, const.UC_ERR_WRITE_UNMAPPED, const.UC_ERR_READ_PROT, const.UC_ERR_WRITE_PROT,
)  # fmt: skip
#: QEMU's exception numbers, as the interrupt hook is given them.
_EXCP_SWI, _EXCP_BKPT, _EXCP_HVC, _EXCP_SMC = 2, 7, 11, 13


class _Registers:
    """A fixed list of registers, which are written or read in one call, in order. ``values`` is the buffer."""

    def __init__(self, uc: Uc, registers: Sequence[int]) -> None:
        count = len(registers)
        self._handle = uc._uch
        self._count = count
        self._ids = (ctypes.c_int * count)(*registers)
        buffer = (ctypes.c_uint64 * count)()
        first = ctypes.addressof(buffer)
        self._places = (ctypes.c_void_p * count)(*(first + 8 * i for i in range(count)))
        self.values: Any = buffer

    def write(self, *values: int) -> None:
        self.values[:] = values
        uclib.uc_reg_write_batch(self._handle, self._ids, self._places, self._count)

    def read(self) -> list[int]:
        uclib.uc_reg_read_batch(self._handle, self._ids, self._places, self._count)
        return [value & 0xFFFFFFFF for value in self.values]


class UnicornMachine:
    """A Cortex-A15: ARMv7 with the virtualisation extensions' SDIV and UDIV in A32."""

    name = "unicorn"

    def __init__(self) -> None:
        self._uc = Uc(UC_ARCH_ARM, UC_MODE_ARM)
        self._uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_A15)
        self._uc.mem_map(0, RAM_SIZE)
        self._uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        # The CPSR comes first everywhere: writing it switches banks.
        self._cpsr = _Registers(self._uc, [arm.UC_ARM_REG_CPSR])
        self._before = _Registers(self._uc, [arm.UC_ARM_REG_CPSR, *_GENERAL])
        self._after = _Registers(self._uc, [*_GENERAL, arm.UC_ARM_REG_PC, arm.UC_ARM_REG_CPSR])
        self._bank = _Registers(self._uc, [arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR])
        self._spsr = _Registers(self._uc, [arm.UC_ARM_REG_SPSR])
        self._high = _Registers(self._uc, [arm.UC_ARM_REG_R0 + n for n in range(8, 13)])
        self._uc.hook_add(const.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._interrupt: int | None = None
        self._fault = ""
        self._clean = default_ram()
        self._code = b""
        self._uc.mem_write(0, self._clean)
        self._set_default_banks()
        self._context = self._uc.context_save()

    def run(self, case: Case) -> Outcome:
        """Execute the case, which must be straight-line code in which only the last instruction may branch."""
        self._load(case)
        self._interrupt = None
        self._fault = ""
        error = const.UC_ERR_OK
        try:
            self._uc.emu_start(CODE, case.code_end, count=len(case.code))
        except UcError as failure:
            error = failure.errno
        *registers, cpsr = self._after.read()
        end = self._describe(error, case, cpsr, registers[15])
        if end.startswith(("svc", "hvc", "smc")):
            registers[15] -= 4  # A tier stops at the instruction, QEMU behind it.
        memory = bytes(self._uc.mem_read(0, RAM_SIZE))
        banks = self._banks(cpsr) if case.privileged else None
        outcome = Outcome(end, tuple(registers), cpsr & PSR_BITS, memory, banks, self._fault if end == "abort" else "")
        self._restore_ram(memory)
        return outcome

    def _on_interrupt(self, uc: Uc, number: int, data: object) -> None:
        self._interrupt = number
        uc.emu_stop()

    def _on_unmapped(self, uc: Uc, access: int, gva: int, size: int, value: int, data: object) -> bool:
        if access != const.UC_MEM_FETCH_UNMAPPED and not self._fault:
            self._fault = f"{'write' if access == const.UC_MEM_WRITE_UNMAPPED else 'read'} {gva:#x}"
        return False

    def _describe(self, error: int, case: Case, cpsr: int, pc: int) -> str:
        word = case.code[min((pc - CODE) // 4, len(case.code) - 1)] if CODE <= pc <= case.code_end else 0
        match self._interrupt:
            case None:
                pass
            case number if number == _EXCP_SWI:
                return f"svc {case.code[(pc - CODE) // 4 - 1] & 0xFFFFFF:#x}"
            case number if number == _EXCP_BKPT:
                return f"bkpt {word >> 4 & 0xFFF0 | word & 0xF:#x}"
            case number if number == _EXCP_HVC:
                return f"hvc {word >> 4 & 0xFFF0 | word & 0xF:#x}"
            case number if number == _EXCP_SMC:
                return f"smc {word & 0xF:#x}"
            case number:
                return f"interrupt {number}"
        if error in _ABORTS:
            return "abort"
        if error == const.UC_ERR_INSN_INVALID:
            return "undefined"
        if error not in (const.UC_ERR_OK, const.UC_ERR_FETCH_UNMAPPED):  # The latter is the next instruction's.
            return f"error {error}"
        return "thumb" if cpsr & PSR_T else "ok"

    # -- state -------------------------------------------------------------------------------------

    def _set_default_banks(self) -> None:
        for name, mode in BANK_MODES.items():
            self._cpsr.write(mode | 0x1C0)
            self._bank.write(DEFAULT_BANKS[f"sp_{name}"], DEFAULT_BANKS[f"lr_{name}"])
            if BANKS[mode]:
                self._spsr.write(DEFAULT_BANKS[f"spsr_{name}"])
            if name in ("usr", "fiq"):
                self._high.write(*(DEFAULT_BANKS[f"r{n}_{name}"] for n in range(8, 13)))

    def _load(self, case: Case) -> None:
        uc = self._uc
        uc.context_restore(self._context)
        self._before.write(case.cpsr, *case.registers)
        if BANKS[case.mode]:
            self._spsr.write(case.spsr)
        for gpa, word in case.memory:
            uc.mem_write(gpa, word.to_bytes(4, "little"))
        code = case.code_bytes
        if code != self._code:
            behind = self._clean[case.code_end : CODE + len(self._code)]
            uc.mem_write(CODE, code + behind)
            uc.ctl_remove_cache(CODE, CODE + len(code + behind))
            self._code = code

    def _banks(self, cpsr: int) -> dict[str, int]:
        """Return every bank under the tiers' names, by visiting each mode."""
        values: dict[str, int] = {}
        for name, mode in BANK_MODES.items():
            self._cpsr.write(cpsr & ~PSR_MODE | mode)
            if name in ("usr", "fiq"):
                values |= {f"r{n}_{name}": value for n, value in zip(range(8, 13), self._high.read(), strict=True)}
            values[f"sp_{name}"], values[f"lr_{name}"] = self._bank.read()
            if mode != Mode.USER:
                values[f"spsr_{name}"] = self._spsr.read()[0]
        return values

    def _restore_ram(self, memory: bytes) -> None:
        if memory[:CODE] != self._clean[:CODE]:
            self._uc.mem_write(0, self._clean[:CODE])
        code = self._code + self._clean[CODE + len(self._code) :]
        if memory[CODE:] != code:
            self._uc.mem_write(CODE, code)
            self._uc.ctl_remove_cache(CODE, RAM_SIZE)
