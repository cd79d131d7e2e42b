"""Every choice that was made where the architecture leaves one: UNPREDICTABLE, UNKNOWN, IMPLEMENTATION DEFINED.

The place where a choice is made names it in a comment, ``choice: <name>``. Nothing else may differ from the
architecture. "QEMU" in a reason means that Unicorn 2.1.4 (QEMU 5.0.1) does the same, so random tests need no exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Freedom(Enum):
    """The manual's terms for the freedom that it leaves."""

    UNPREDICTABLE = "UNPREDICTABLE"
    UNKNOWN = "UNKNOWN"
    IMPLEMENTATION_DEFINED = "IMPLEMENTATION DEFINED"
    SUBSET = "part of the architecture that is not there"


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice. ``where`` has the manual's section and the subject, ``chosen`` what we do, and ``why`` the reason."""

    name: str
    freedom: Freedom
    where: str
    chosen: str
    why: str


_UNPREDICTABLE, _UNKNOWN = Freedom.UNPREDICTABLE, Freedom.UNKNOWN
_DEFINED, _SUBSET = Freedom.IMPLEMENTATION_DEFINED, Freedom.SUBSET

CHOICES: tuple[Choice, ...] = (
    # -- R15 -----------------------------------------------------------------------------------
    Choice("r15-operand", _UNPREDICTABLE, "everywhere: R15 as an operand that may not be it",
           "reads as the instruction's address + 8", "one rule for all"),
    Choice("operands-read-first", _UNPREDICTABLE, "A8.8.74, A8.8.212, A8.8.229: an operand that is also a result",
           "every operand is read before any register is written", "one rule for all; QEMU's STREX is undefined"),
    Choice("discarded-pc-write", _UNPREDICTABLE, "everywhere: R15 as a destination that may not be it",
           "the write is discarded, that of a base too", "one rule for all, and no handlers for it; QEMU branches"),
    Choice("branch-target-bit-1", _UNPREDICTABLE, "A2.3.1: a branch to an address with bits 1:0 = 0b10",
           "bit 1 is ignored", "A32 code is word-aligned, and no fault is architected"),
    Choice("pc-write-interworks", _DEFINED, "A2.3.1: data processing and loads that write the PC",
           "bit 0 selects Thumb, as ARMv7 does", "ARMv4 did not, and code for it has the bit clear"),
    Choice("str-pc-offset", _DEFINED, "A8.8.199, A8.8.204: STR or STM of the PC",
           "address + 8", "the only value that ARMv7 allows; QEMU"),
    # -- loads and stores ----------------------------------------------------------------------
    Choice("unaligned-access", _DEFINED, "A3.2.1: addresses that are not a multiple of the size",
           "LDR, STR and the halfword transfers do them; LDM, STM, LDRD, STRD, SWP, exclusives fault",
           "ARMv7 with SCTLR.A clear; ARMv5's rotated loads are not done"),
    Choice("read-only-ram", _DEFINED, "A3.1: a store to memory that cannot be written to",
           "is ignored", "so do ROMs on buses without an error response; QEMU"),
    Choice("load-base-is-target", _UNPREDICTABLE, "A8.8.58, A8.8.63: a load with writeback that also loads its base",
           "the loaded value stays", "QEMU for LDR; its LDM is undefined on ARMv7, its LDRD keeps the base"),
    Choice("stm-base-in-list", _UNKNOWN, "A8.8.199: STM with writeback and the base in the list, not lowest",
           "stores the base before the instruction", "QEMU"),
    Choice("empty-register-list", _UNPREDICTABLE, "A8.8.58, A8.8.199: LDM, STM without a register",
           "undefined instruction", "no compiler writes it; QEMU"),
    Choice("block-transfer-base-pc", _UNPREDICTABLE, "A8.8.58, A8.8.199: LDM, STM with the PC as base",
           "undefined instruction", "QEMU"),
    Choice("user-registers-writeback", _UNPREDICTABLE, "B9.3.6, B9.3.17: LDM, STM of the user registers with bit W",
           "undefined instruction", "QEMU for LDM"),
    Choice("odd-register-pair", _UNPREDICTABLE, "A8.8.72, A8.8.77, A8.8.210, A8.8.214: a pair from an odd register",
           "undefined instruction", "QEMU"),
    Choice("unprivileged-pair", _UNPREDICTABLE, "A8.8.72, A8.8.210: LDRD, STRD with P = 0, W = 1",
           "undefined instruction", "QEMU"),
    Choice("hints-do-nothing", _DEFINED, "A8.8.119 to A8.8.130, A5.7.1: NOP, SEV, DBG, preloads, unallocated hints",
           "nothing happens, not even a fault", "there is one processor and no cache"),
    # -- exclusives and SWP --------------------------------------------------------------------
    Choice("exclusive-monitor", _DEFINED, "A3.4.5: what the local monitor watches",
           "the address of the last load-exclusive, exactly, whatever the size; ordinary stores leave it alone",
           "the architecture allows granules up to 2 KiB; one processor needs no global monitor"),
    Choice("strex-monitor-first", _DEFINED, "A3.4.5: whether a store-exclusive that would fail can abort",
           "a failing one does not access memory, and does not fault", "QEMU"),
    Choice("exclusive-pair-fault-address", _DEFINED, "A8.8.77, A8.8.214: LDREXD, STREXD of a word-aligned address",
           "an alignment fault whose address has bit 0 set", "accesses are of 4 bytes; this makes one of them fault"),
    Choice("swp-enabled", _DEFINED, "A8.8.229: SWP, SWPB", "always there", "ARMv4 and ARMv5 programs use them; QEMU"),
    Choice("monitor-at-exceptions", _DEFINED, "B1.8.3: the local monitor at exception entry and return",
           "unchanged", "ARMv7 leaves clearing it to CLREX in the handler"),
    # -- status registers and modes ------------------------------------------------------------
    Choice("mrs-user-mode", _UNKNOWN, "B9.3.8: CPSR bits outside the APSR, read in user mode",
           "their values", "nothing is secret here; QEMU"),
    Choice("msr-no-bytes", _UNPREDICTABLE, "B9.3.12: MSR (register) that selects no byte",
           "writes nothing", "what the pseudocode says; QEMU"),
    Choice("invalid-mode", _UNPREDICTABLE, "B1.3.1: a CPSR written with an M that is no mode of this processor",
           "the mode does not change, the rest is written", "QEMU; Monitor and Hyp mode are not there"),
    Choice("srs-invalid-mode", _UNPREDICTABLE, "B9.3.16: SRS with an M that is no mode of this processor",
           "undefined instruction", "QEMU"),
    Choice("spsr-of-system-mode", _UNPREDICTABLE, "B9.3.8, B9.3.12, B9.3.16, B9.3.20: the SPSR in system mode",
           "reads as the CPSR, and writes are discarded", "there is none; QEMU has one"),
    Choice("privileged-in-user-mode", _UNPREDICTABLE, "B9.3: exception returns, SPSR, RFE, SRS and ^ in user mode",
           "undefined instruction", "so that a hypervisor or kernel sees it; QEMU"),
    Choice("cps-combinations", _UNPREDICTABLE, "B9.3.2: CPS with masks but no effect, or a mode without M",
           "each field does what it does alone", "QEMU"),
    # -- exceptions ----------------------------------------------------------------------------
    Choice("undefined-whatever-condition", _DEFINED, "B1.9.3: an undefined word whose condition fails",
           "undefined instruction", "a word that means nothing has no condition"),
    Choice("conditional-breakpoint", _UNPREDICTABLE, "A8.8.24, B9.3.4: BKPT, HVC with a condition other than AL",
           "happens if the condition holds", "the wrapper around every instruction; QEMU"),
    Choice("wfe-ends-at-once", _DEFINED, "B1.8.13: how long WFE waits",
           "not at all", "there is no other processor to send the event"),
    Choice("breakpoint-fault-address", _UNKNOWN, "B3.13.1: IFAR after BKPT", "unchanged", "QEMU"),
    Choice("no-device", _DEFINED, "B3.12: whether an access to where nothing answers is an external abort",
           "to a kernel loads are zero and stores do nothing; to a bare program it is one. A fetch always is",
           "QEMU's Versatile/PB, for which kernels are written; a program with a wild pointer had better be told"),
    # -- multiplication and bit fields ---------------------------------------------------------
    Choice("long-multiply-same-register", _UNPREDICTABLE, "A8.8.178, A8.8.189, A8.8.256, A8.8.257: RdHi = RdLo",
           "the high word is what stays", "QEMU"),
    Choice("empty-bit-field", _UNPREDICTABLE, "A8.8.19, A8.8.20: BFC, BFI with msb < lsb",
           "a field of (msb - lsb) modulo 32, plus 1, bits from lsb up, cut at bit 31", "no test on the way"),
    Choice("bit-field-over-the-top", _UNPREDICTABLE, "A8.8.164, A8.8.246: SBFX, UBFX with lsb + width > 32",
           "shift amounts are taken modulo 32", "no test on the way"),
    # -- what is not there ---------------------------------------------------------------------
    Choice("should-be-bits", _UNPREDICTABLE, "A5.1.2: bits written (0) or (1) that are not",
           "ignored", "the fewest bits to look at; QEMU's decoder wants most of them"),
    Choice("no-big-endian", _SUBSET, "A3.3.1: big-endian data",
           "SETEND is undefined; a CPSR with E set, or SCTLR.EE, ends the run", "no guest of ours is big-endian"),
    Choice("no-thumb", _SUBSET, "A2.5.1: Thumb and ThumbEE", "entering it ends the run", "not translated yet"),
    Choice("no-security-no-virtualization", _SUBSET, "B1.5, B1.7: the Security and Virtualization Extensions",
           "SMC is undefined, and HVC as well unless the board has firmware that it calls (PSCI); ERET returns; "
           "banked MRS and MSR, Monitor and Hyp mode are missing",
           "hypercalls are ours to answer; QEMU's board virt does so without EL2 and EL3"),
    Choice("no-lpae", _SUBSET, "B3.6: the Large Physical Address Extension of the Cortex-A15 and A7",
           "ID_MMFR0.VMSA is 3, TTBCR.EAE does not stay, and TTBR0, TTBR1 and PAR have 32 bits",
           "kernels look at ID_MMFR0; those with long descriptors need it, and distributions ship others"),
    Choice("no-debug-events", _SUBSET, "C3: breakpoints and watchpoints of the debug architecture",
           "their registers keep what is written, and nothing ever matches",
           "a kernel finds as many as QEMU has; a debugger outside stops the guest without them"),
    Choice("no-monitor-filters", _SUBSET, "C12.8: performance monitors that count some modes only",
           "the filter bits are kept, and all modes are counted", "it would cost at each change of the mode"),
    Choice("implementation-defined-c15", _DEFINED, "B3.17.2: CP15 c15 of the Cortex-A15 and A7",
           "zero, and ignores writes; only the base of the private peripherals is there",
           "what controls caches and prediction has nothing to do; QEMU"),
    Choice("no-jazelle", _SUBSET, "B1.3.3: Jazelle",
           "BXJ is BX; bit J of the CPSR is zero", "the trivial implementation"),
    Choice("midr", _DEFINED, "B4.1.105: identification registers",
           "implementer 0, part 0xDB0, ARMv7 by CPUID; no caches, no Thumb, no security extensions",
           "nobody's processor; the feature registers say what is true"),
)  # fmt: skip
