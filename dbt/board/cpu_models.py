"""The processors that a machine can be given, by name: those of :mod:`isa.arm.cpus`."""

from __future__ import annotations

from isa.arm.cpus import CPUS

CPU_MODELS = tuple(CPUS)
#: The model for programs: everything that is implemented of ARMv4 to ARMv7-A, whichever processor has it.
PROGRAM_CPU = "any"
#: The model for kernels: the processor of the Versatile/PB (ARM DUI 0224), for which its kernels are built.
KERNEL_CPU = "arm926"
