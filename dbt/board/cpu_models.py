"""The processors that a machine can be given, by name: those of :mod:`isa.arm.cpus`."""

from __future__ import annotations

from isa.arm.cpus import CPUS

CPU_MODELS = tuple(CPUS)
#: All that is here of ARMv4 to ARMv7-A, whichever processor has it.
PROGRAM_CPU = "any"
#: What Versatile/PB has (ARM DUI 0224), and so what its kernels are built for.
KERNEL_CPU = "arm926"
