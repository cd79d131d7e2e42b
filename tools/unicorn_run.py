"""A program that runs a guest under Unicorn with just enough ARM semihosting for the benchmarks.

    python tools/unicorn_run.py BASE IMAGE [ARGS...]

BASE is the load address of a flat image; 0 means that IMAGE is an ELF file.
"""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_ARM, UC_HOOK_INTR, UC_MODE_ARM, Uc
from unicorn.arm_const import UC_ARM_REG_PC, UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_A15

RAM = 128 << 20


class Semihosting:
    """The operations that a benchmark's C library uses. See ARM's semihosting specification."""

    def __init__(self, uc: Uc, command_line: str) -> None:
        self.uc = uc
        self.command_line = command_line.encode() + b"\0"
        self.status = 0

    def words(self, block: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self.uc.mem_read(block, 4 * count))

    def call(self, uc: Uc, number: int, _: object) -> None:
        operation, block = uc.reg_read(UC_ARM_REG_R0), uc.reg_read(UC_ARM_REG_R1)
        if number != 2:
            raise SystemExit(f"unexpected exception {number} at {uc.reg_read(UC_ARM_REG_PC):#x}")
        uc.reg_write(UC_ARM_REG_R0, self.answer(operation, block) & 0xFFFFFFFF)

    def answer(self, operation: int, block: int) -> int:
        uc = self.uc
        match operation:
            case 0x01:  # SYS_OPEN
                name, _, length = self.words(block, 3)
                return 1 if bytes(uc.mem_read(name, length)) == b":tt" else -1
            case 0x03:  # SYS_WRITEC
                sys.stdout.buffer.write(uc.mem_read(block, 1))
            case 0x04:  # SYS_WRITE0
                while (byte := bytes(uc.mem_read(block, 1))) != b"\0":
                    sys.stdout.buffer.write(byte)
                    block += 1
            case 0x05:  # SYS_WRITE
                _, data, length = self.words(block, 3)
                sys.stdout.buffer.write(uc.mem_read(data, length))
            case 0x09:  # SYS_ISTTY
                return 1
            case 0x10:  # SYS_CLOCK
                return int(time.process_time() * 100)
            case 0x15:  # SYS_GET_CMDLINE
                buffer, _ = self.words(block, 2)
                uc.mem_write(buffer, self.command_line)
                uc.mem_write(block + 4, struct.pack("<I", len(self.command_line) - 1))
            case 0x16:  # SYS_HEAPINFO
                (pointer,) = self.words(block, 1)
                uc.mem_write(pointer, struct.pack("<4I", 0, RAM - (1 << 20), RAM, 0))
            case 0x18:  # SYS_EXIT
                self.status = 0 if block == 0x20026 else 1
                uc.emu_stop()
            case 0x20:  # SYS_EXIT_EXTENDED
                self.status = self.words(block, 2)[1]
                uc.emu_stop()
            case _:
                return -1
        return 0


def main() -> int:
    base, path, *args = sys.argv[1:]
    uc = Uc(UC_ARCH_ARM, UC_MODE_ARM)
    uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_A15)
    uc.mem_map(0, RAM)
    entry = int(base, 0)
    if entry:
        uc.mem_write(entry, Path(path).read_bytes())
    else:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            entry = elf["e_entry"]
            for segment in elf.iter_segments("PT_LOAD"):
                uc.mem_write(segment["p_paddr"], segment.data())
    semihosting = Semihosting(uc, " ".join([Path(path).name, *args]))
    uc.hook_add(UC_HOOK_INTR, semihosting.call)
    uc.reg_write(UC_ARM_REG_SP, RAM)
    uc.emu_start(entry, 0xFFFFFFFC)
    sys.stdout.flush()
    return semihosting.status


if __name__ == "__main__":
    sys.exit(main())
