"""The processors that a guest can have: their identification registers and their architecture versions.

Values are those of the technical reference manuals (DDI 0198, DDI 0301, DDI 0344), without the Security Extensions.
The Cortex-A15 and A7 (DDI 0438, DDI 0464) are as QEMU has them without EL2, EL3, VFP and NEON, and without LPAE.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Mapping
from typing import NamedTuple

from isa.arm.state import (
    SCTLR_A,
    SCTLR_AFE,
    SCTLR_B,
    SCTLR_EE,
    SCTLR_M,
    SCTLR_TE,
    SCTLR_V,
    SCTLR_XP,
    Architecture,
)

_C, _W, _S, _R = 1 << 2, 1 << 3, 1 << 8, 1 << 9
_SW, _Z, _I, _RR, _L4, _HA = 1 << 10, 1 << 11, 1 << 12, 1 << 14, 1 << 15, 1 << 17
_DT, _IT, _FI, _U, _TRE = 1 << 16, 1 << 18, 1 << 21, 1 << 22, 1 << 28
_COMMON = SCTLR_M | SCTLR_A | _C | _I | SCTLR_V | _RR


class CpuModel(NamedTuple):
    """A processor. ``words`` has the words of the state that are not 0 after a reset."""

    name: str
    architecture: Architecture
    words: Mapping[str, int]


ARM926 = CpuModel("arm926", Architecture.V5, {
    "midr": 0x41069265, "ctr": 0x01DD20D2,
    "sctlr": 0x00050078, "sctlr_writable": _COMMON | SCTLR_B | _S | _R | _L4,
})  # fmt: skip

ARM1176 = CpuModel("arm1176", Architecture.V6, {
    "midr": 0x410FB767, "ctr": 0x01DD20D2,
    "id_pfr0": 0x111, "id_pfr1": 0x1, "id_dfr0": 0x3,
    "id_mmfr0": 0x01130003, "id_mmfr1": 0x10030302, "id_mmfr2": 0x01222100,
    "id_isar0": 0x00140011, "id_isar1": 0x12002111, "id_isar2": 0x11231121, "id_isar3": 0x01102131, "id_isar4": 0x1141,
    "sctlr": 0x00050078,
    "sctlr_writable": _COMMON | SCTLR_B | _S | _R | _Z | _L4 | _FI | _U | SCTLR_XP | SCTLR_EE | _TRE | SCTLR_AFE,
})  # fmt: skip

CORTEX_A8 = CpuModel("cortex-a8", Architecture.V7, {
    "midr": 0x410FC080, "ctr": 0x82048004,
    "id_pfr0": 0x1031, "id_pfr1": 0x1, "id_dfr0": 0x400,
    "id_mmfr0": 0x31100003, "id_mmfr1": 0x20000000, "id_mmfr2": 0x01202000, "id_mmfr3": 0x11,
    "id_isar0": 0x00101111, "id_isar1": 0x12112111, "id_isar2": 0x21232031, "id_isar3": 0x11112131,
    "id_isar4": 0x00111142,
    "clidr": 0x0A000003, "ccsidr": 0xE007E01A, "ccsidr+1": 0x2007E01A, "ccsidr+2": 0xF0000000,
    "sctlr": 0x00C50078,
    "sctlr_writable": _COMMON | _Z | _SW | SCTLR_EE | _TRE | SCTLR_AFE | SCTLR_TE,
})  # fmt: skip

#: What the Cortex-A15 and the Cortex-A7 have in common. MMFR0.VMSA is 3: there is no LPAE. choice: no-lpae
_V7VE: Mapping[str, int] = {
    "mpidr": 0x80000000,  # with the multiprocessing extensions
    "id_pfr0": 0x1131, "id_pfr1": 0x10001, "id_dfr0": 0x02010505, "id_mmfr2": 0x01240000, "id_mmfr3": 0x02102211,
    "id_isar0": 0x02101110, "id_isar1": 0x13112111, "id_isar2": 0x21232041, "id_isar3": 0x11112131,
    "id_isar4": 0x10011142,
    "clidr": 0x0A200023, "ccsidr": 0x701FE00A, "ccsidr+1": 0x201FE00A, "ccsidr+2": 0x711FE07A,
    "cntfrq": 62_500_000, "l2ctlr": 0x00800000, "cbar": 0x08000000, "dbgdevid": 0x01110F13, "dbgoslsr": 0b1010,
    "sctlr": 0x00C50078,
    "sctlr_writable": SCTLR_M | SCTLR_A | _C | _SW | _Z | _I | SCTLR_V | SCTLR_EE | _TRE | SCTLR_AFE | SCTLR_TE,
}  # fmt: skip
CORTEX_A15 = CpuModel("cortex-a15", Architecture.V7VE, {
    **_V7VE, "midr": 0x414FC0F0, "ctr": 0x8444C004, "id_mmfr0": 0x10201103, "id_mmfr1": 0x20000000,
    "dbgdidr": 0x3515F021, "pmcr": 0x410F3000,
})  # fmt: skip
CORTEX_A7 = CpuModel("cortex-a7", Architecture.V7VE, {
    **_V7VE, "midr": 0x410FC075, "ctr": 0x84448003, "id_mmfr0": 0x10101103, "id_mmfr1": 0x40000000,
    "pmcr": 0x41072000, "dbgdidr": 0x3515F005, "dbgdevid+1": 1,
})  # fmt: skip

#: A processor that does not exist, with everything that is implemented: no caches, no Thumb, no Security Extensions.
#: Its descriptors are those of ARMv5 until SCTLR.XP is set, which ARMv6 added and ARMv7 fixed. So kernels for ARMv5 and
#: v6 run. choice: midr
ANY = CpuModel("any", Architecture.ANY, {
    "midr": 0x000FDB00, "ctr": 0x80048004, "mpidr": 0xC0000000,  # lines of 16 words; a uniprocessor
    "id_pfr0": 0x1, "id_pfr1": 0x1,  # A32, no Thumb
    "id_mmfr0": 0x3, "id_mmfr2": 0x01200000,  # VMSAv7; WFI stalls, DSB DMB ISB
    "id_isar0": 0x02100111, "id_isar1": 0x13102110, "id_isar2": 0x21232041, "id_isar3": 0x01002131,
    "id_isar4": 0x00010142,
    "sctlr": 0x00450078,
    "sctlr_writable": _COMMON | _S | _R | SCTLR_XP | _Z | _SW | _HA | SCTLR_EE | _TRE | SCTLR_AFE | SCTLR_TE,
})  # fmt: skip

CPUS: Mapping[str, CpuModel] = {model.name: model for model in (ARM926, ARM1176, CORTEX_A8, CORTEX_A7, CORTEX_A15, ANY)}
