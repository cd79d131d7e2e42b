/*
 * Into the kernel and out of it, in the para-virtual form: the hypervisor has put the registers of the process on a
 * page, and takes them from there. Then as in vectors.S.
 */
#include "layout.h"

        .text
        .global traps
traps:                                          /* r0: the kind of exception, r1: the page */
#ifdef BENCH
        ldr     r2, [r1, #PV_IN_KERNEL]
        cmp     r2, #0
        cmpne   r0, #TRAP_IRQ
        beq     for_kernel
handle:
#endif
        ldr     sp, =kernel_stack_top
        ldr     lr, =current
        ldr     lr, [lr]
        mov     r12, lr
        ldmia   r1!, {r2-r10}
        stmia   r12!, {r2-r10}
        ldmia   r1, {r2-r9}
        stmia   r12, {r2-r9}
        mov     r1, lr
        bl      trap                            @ trap(kind, frame)

        .global resume
resume:
        bl      entries_done
        ldr     r0, =current
        ldr     r0, [r0]
        ldr     r1, =PV_FRAME
        ldmia   r0!, {r2-r10}
        stmia   r1!, {r2-r10}
        ldmia   r0, {r2-r9}
        stmia   r1, {r2-r9}
        mov     r12, #IRET
        svc     #0

#ifdef BENCH
for_kernel:                                     @ equal is also what has not come from the kernel
        cmp     r2, #0
        beq     handle
        bl      upcall
        mov     r12, #IRET
        svc     #0
#endif
        .ltorg
