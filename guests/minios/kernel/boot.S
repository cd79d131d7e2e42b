/*
 * From reset to C: the page tables of the kernel, the MMU, the jump to where the kernel is linked.
 *
 * The image is loaded at physical 0x10000 and entered at _start in supervisor mode with the MMU off. Everything but
 * this file's first part is linked at 0xc0000000 and up; until the jump an address of it is taken with PHYS().
 */
#include "layout.h"

#define PHYS(symbol) (symbol - KERNEL_BASE)

        .section .boot, "ax"
        .global _start
_start:
        msr     cpsr_c, #(NO_INTERRUPTS | MODE_SVC)

        ldr     r0, =PHYS(__bss_start)          @ the page tables are in there, so this is first
        ldr     r1, =PHYS(__bss_end)
        mov     r2, #0
1:      str     r2, [r0], #4
        cmp     r0, r1
        blo     1b

/* RAM at 0xc0000000 and, for as long as we run here, its first megabyte at 0. */
        ldr     r4, =PHYS(kernel_table)
        ldr     r5, =(L1_SECTION | L1_KERNEL | L1_MEMORY)
        str     r5, [r4]
        add     r0, r4, #(KERNEL_BASE / SECTION * 4)
        add     r1, r5, #RAM_SIZE
2:      str     r5, [r0], #4
        add     r5, r5, #SECTION
        cmp     r5, r1
        blo     2b

/* Two megabytes of devices. */
        ldr     r5, =(DEVICES | L1_SECTION | L1_KERNEL | L1_DEVICE)
        add     r0, r4, #(DEVICES_BASE / SECTION * 4)
        str     r5, [r0], #4
        add     r5, r5, #SECTION
        str     r5, [r0]

/* The last megabyte has a table, and this one entry: the page of the vectors. */
        ldr     r5, =PHYS(vectors_table)
        orr     r0, r5, #(L1_TABLE | L1_ONE)
        ldr     r1, =(4095 * 4)
        str     r0, [r4, r1]
        ldr     r0, =PHYS(vectors)
        ldr     r1, =(L2_PAGE | L2_KERNEL)
        orr     r0, r0, r1
        str     r0, [r5, #((VECTORS_BASE / PAGE % 256) * 4)]

        mov     r0, #0
        mcr     p15, 0, r0, c7, c7, 0           @ invalidate caches
        mcr     p15, 0, r0, c7, c10, 4          @ drain the write buffer
        mcr     p15, 0, r0, c8, c7, 0           @ invalidate the TLB
        mcr     p15, 0, r4, c2, c0, 0           @ translation table base
        mov     r0, #1
        mcr     p15, 0, r0, c3, c0, 0           @ domain 0, the only one, is a client: permissions are checked
#if ARCH >= 6
        mov     r0, #0
        mcr     p15, 0, r0, c2, c0, 2           @ for now TTBR0 is for all addresses
#endif

/*
 * Caches stay off: those of the ARM926 are indexed and tagged by virtual addresses, and every change of the address
 * space would have to clean them.
 */
        mrc     p15, 0, r0, c1, c0, 0
        bic     r0, r0, #SCTLR_C
        bic     r0, r0, #SCTLR_I
        orr     r0, r0, #(SCTLR_M | SCTLR_A)
        orr     r0, r0, #SCTLR_V
#if ARCH >= 6
        orr     r0, r0, #SCTLR_XP
#endif
        ldr     r1, =high
        mcr     p15, 0, r0, c1, c0, 0
        mrc     p15, 0, r0, c1, c0, 0           @ wait for it
        mov     r0, r0
        mov     pc, r1
        .ltorg

        .text
high:
#if ARCH >= 6
        mcr     p15, 0, r4, c2, c0, 1           @ TTBR1, for 0x80000000 and up: the kernel
        mov     r0, #1
        mcr     p15, 0, r0, c2, c0, 2           @ TTBCR.N = 1: TTBR0 is for what is below, a process
#endif
        mov     r0, #0
        ldr     r1, =kernel_table
        str     r0, [r1]                        @ the megabyte at 0 goes
        mcr     p15, 0, r0, c7, c10, 4
        mcr     p15, 0, r0, c8, c7, 0
        ldr     sp, =kernel_stack_top
        bl      kernel_main
        b       resume
        .ltorg

        .bss
        .balign 0x4000
        .global kernel_table
kernel_table:
        .space  0x4000
vectors_table:
        .space  0x400
        .balign 8
        .space  0x1000
        .global kernel_stack_top
kernel_stack_top:
