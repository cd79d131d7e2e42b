/*
 * Into the kernel and out of it.
 *
 * Every exception comes from user mode, for the kernel masks interrupts and makes no errors. So an entry saves all
 * registers of the process in its frame, the beginning of its struct process, and begins with an empty stack; there
 * is one stack for the kernel. The way out loads the registers of `current`, which may be another process by then.
 */
#include "layout.h"

        .section .vectors, "ax"                 @ a page of its own, which is mapped at 0xffff0000
        .global vectors
vectors:
        ldr     pc, reset_address
        ldr     pc, undefined_address
        ldr     pc, syscall_address
        ldr     pc, prefetch_address
        ldr     pc, data_address
        ldr     pc, reset_address               @ not used
        ldr     pc, irq_address
        ldr     pc, fiq_address
reset_address:
        .word   reset
undefined_address:
        .word   undefined
syscall_address:
        .word   syscall
prefetch_address:
        .word   prefetch
data_address:
        .word   data
irq_address:
        .word   irq
fiq_address:
        .word   fiq

        .text
/* lr is the address to go on at plus `beyond`. The stack pointers of the other modes are but a register here. */
        .macro  enter kind, beyond
        .if     \beyond
        sub     lr, lr, #\beyond
        .endif
#if ARCH >= 6
        srsdb   sp!, #MODE_SVC                  @ SVC's stack pointer is at the end of the frame: see resume
        cpsid   if, #MODE_SVC
        stmdb   sp, {r0-r14}^                   @ ^: the registers of user mode
        nop                                     @ no banked register right after that
        sub     r1, sp, #FRAME_PC
#else
        ldr     sp, =current
        ldr     sp, [sp]
        stmia   sp, {r0-r14}^                   @ ^: the registers of user mode
        nop                                     @ no banked register right after that
        mrs     r0, spsr
        str     lr, [sp, #FRAME_PC]
        str     r0, [sp, #FRAME_CPSR]
        mov     r1, sp
        msr     cpsr_c, #(NO_INTERRUPTS | MODE_SVC)
#endif
        mov     r0, #\kind
        b       handle
        .endm

undefined:
        enter   TRAP_UNDEFINED, 4
syscall:
        enter   TRAP_SYSCALL, 0
prefetch:
        enter   TRAP_PREFETCH, 4
data:
        enter   TRAP_DATA, 8
irq:
#ifdef BENCH
        sub     lr, lr, #4
        srsdb   sp!, #MODE_SVC
        cpsid   if, #MODE_SVC
        push    {r0}
        ldr     r0, [sp, #8]                    @ SPSR
        and     r0, r0, #0x1f
        cmp     r0, #MODE_SVC
        pop     {r0}
        beq     for_kernel
        stmdb   sp, {r0-r14}^
        nop
        sub     r1, sp, #FRAME_PC
        mov     r0, #TRAP_IRQ
        b       handle
for_kernel:
        push    {r0-r3, r12, lr}
        bl      interrupt
        pop     {r0-r3, r12, lr}
        rfeia   sp!
#else
        enter   TRAP_IRQ, 4
#endif
fiq:
        enter   TRAP_FIQ, 4
reset:
        b       reset

handle:
        ldr     sp, =kernel_stack_top
        bl      trap                            @ trap(kind, frame)

        .global resume
resume:
#if ARCH >= 6
        ldr     sp, =current
        ldr     sp, [sp]
        ldmia   sp, {r0-r14}^
        nop                                     @ no banked register right after that
        add     sp, sp, #FRAME_PC
        rfeia   sp!
#else
        ldr     lr, =current
        ldr     lr, [lr]
        ldr     r0, [lr, #FRAME_CPSR]
        msr     spsr_cxsf, r0
        ldmia   lr, {r0-r14}^
        nop                                     @ no banked register right after that
        ldr     lr, [lr, #FRAME_PC]
        movs    pc, lr
#endif
        .ltorg
