/*
 * Where everything is, and the bits of page tables and of the control coprocessor. For C and for assembly.
 *
 *   physical                             virtual
 *   0x00000000  RAM, 8 MB                0xc0000000  the same, for the kernel only; its image at 0xc0010000
 *   0x10000000  devices, 2 MB            0xf0000000  the same, for the kernel only
 *                                        0xffff0000  the vectors, for the kernel only
 *                                        0x00010000  the program of the process, its heap above
 *                                        0x7fff0000  the stack of the process, 64 KB
 *
 * Address 0 is not mapped, so that a null pointer is found out: this is why the vectors are the high ones.
 */
#define PAGE 0x1000
#define SECTION 0x100000

#define RAM_SIZE (8 * SECTION)
#define VIRTUAL_RAM 0xc0000000
#ifdef PV
#include "pv.h"
#else
#define RAM_BASE 0
#endif
#define KERNEL_BASE (VIRTUAL_RAM - RAM_BASE) /* virtual - physical, of RAM */
#define DEVICES 0x10000000
#define DEVICES_BASE 0xf0000000
#define VECTORS_BASE 0xffff0000

#define USER_START 0x00010000
#define USER_END 0x80000000
#define STACK_SIZE 0x10000
#define HEAP_SIZE 0x20000 /* at most */

/* Modes of the processor. The kernel runs in supervisor mode, with interrupts masked always. */
#define MODE_USER 0x10
#define MODE_SVC 0x13
#define MODE_MASK 0x1f
#define NO_INTERRUPTS 0xc0 /* the I and F bits */
#define THUMB 0x20 /* the T bit */

/* What the C handler is told of an exception. */
#define TRAP_UNDEFINED 0
#define TRAP_SYSCALL 1
#define TRAP_PREFETCH 2
#define TRAP_DATA 3
#define TRAP_IRQ 4
#define TRAP_FIQ 5

/* struct frame: the registers of a process, r0 to r14, pc, cpsr. */
#define FRAME_PC 60
#define FRAME_CPSR 64

/* The control register, CP15 c1. */
#define SCTLR_M (1 << 0) /* MMU */
#define SCTLR_A (1 << 1) /* words must be aligned */
#define SCTLR_C (1 << 2) /* data cache */
#define SCTLR_I (1 << 12) /* instruction cache */
#define SCTLR_V (1 << 13) /* vectors at 0xffff0000 */
#define SCTLR_XP (1 << 23) /* ARMv6: page tables without subpages */

/* First-level descriptors, of 1 MB each: a section, or a second-level table of 256 descriptors of 4 KB. */
#define L1_TABLE 0x01
#define L1_SECTION 0x02
#define L1_KERNEL (1 << 10) /* AP = 1: the user has no access */

#if ARCH >= 6
#define L1_ONE 0
#define L1_MEMORY (1 << 12) /* TEX = 1: normal memory, not cached */
#define L1_DEVICE (1 << 2 | 1 << 4) /* shared device, never executed */
#else
#define L1_ONE 0x10 /* a bit that is 1 in all of ARM926's */
#define L1_MEMORY L1_ONE
#define L1_DEVICE L1_ONE
#endif

/*
 * Second-level descriptors, of a small page each. ARMv5 has access permissions for each of its four subpages; here
 * all four are the same. ARMv6 has them once, and a bit against execution, and one for "not global": the TLB entry
 * is only for the current address space identifier.
 */
#define L2_PAGE 0x02
#if ARCH >= 6
#define L2_AP(ap) ((ap) << 4 | 1 << 6) /* TEX = 1: normal memory, not cached */
#define L2_NOT_GLOBAL (1 << 11)
#define L2_XN (1 << 0)
#else
#define L2_AP(ap) ((ap) << 4 | (ap) << 6 | (ap) << 8 | (ap) << 10)
#define L2_NOT_GLOBAL 0
#define L2_XN 0
#endif
#define L2_KERNEL L2_AP(1)
#define L2_USER_READ L2_AP(2)
#define L2_USER_WRITE L2_AP(3)
