/*
 * From the first instruction to C, in the para-virtual form: page tables, and the end of all privilege.
 *
 * The image is loaded at physical 0x40010000 and entered in supervisor mode with the MMU off. All of RAM is mapped by
 * pages, because page tables may not be writable. The hypervisor checks them, and from then on the kernel is a program.
 */
#include "layout.h"

#define PHYS(symbol) (symbol - KERNEL_BASE)
#define TABLES_SIZE (__tables_end - kernel_table)

        .section .boot, "ax"
        .global _start
_start:
        ldr     r0, =PHYS(__bss_start)
        ldr     r1, =PHYS(__bss_end)
        mov     r2, #0
1:      str     r2, [r0], #4
        cmp     r0, r1
        blo     1b

/* A page for each page of RAM: writable, but for the tables themselves. */
        ldr     r0, =PHYS(direct_map)
        ldr     r1, =RAM_BASE
        ldr     r2, =(RAM_BASE + RAM_SIZE)
        ldr     r3, =PHYS(kernel_table)
        ldr     r4, =PHYS(__tables_end)
2:      ldr     r5, =(L2_PAGE | L2_USER_WRITE)
        cmp     r1, r3
        blo     3f
        cmp     r1, r4
        ldrlo   r5, =(L2_PAGE | L2_USER_READ)
3:      orr     r5, r5, r1
        str     r5, [r0], #4
        add     r1, r1, #PAGE
        cmp     r1, r2
        blo     2b
        ldr     r5, =(SHARED_INFO_PAGE | L2_PAGE | L2_USER_WRITE | L2_XN)
        str     r5, [r0]

        ldr     r0, =PHYS(direct_map)
        ldr     r1, =(L1_TABLE | L1_KERNEL_DOMAIN)
        orr     r0, r0, r1
        add     r1, r3, #(VIRTUAL_RAM / SECTION * 4)
        mov     r2, #(RAM_SIZE / SECTION + 1)
4:      str     r0, [r1], #4
        add     r0, r0, #0x400
        subs    r2, r2, #1
        bne     4b

/* The events' interrupt is enabled for good. */
        ldr     r0, =DISTRIBUTOR
        mov     r1, #1
        str     r1, [r0]
        mov     r1, #(1 << EVENT_INTERRUPT)
        str     r1, [r0, #0x100]
        ldr     r0, =CPU_INTERFACE
        mov     r1, #0xff
        str     r1, [r0, #4]
        mov     r1, #1
        str     r1, [r0]

        adr     r0, beginning
        mov     r12, #SET_TRAP_TABLE
        .inst   0xe140ea71                      @ hvc #0xea1
        b       .                               @ refused

        .balign 8
beginning:
        .word   PHYS(kernel_table), high, kernel_stack_top, traps
        .ltorg

        .text
high:
        bl      kernel_main
        b       resume

        .bss
        .balign 0x4000
        .global kernel_table, direct_map, __tables_end
kernel_table:
        .space  0x4000
direct_map:
        .space  RAM_SIZE / PAGE * 4 + PAGE
__tables_end:
        .space  0x1000
        .global kernel_stack_top
kernel_stack_top:
