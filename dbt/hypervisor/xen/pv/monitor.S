/*
 * The part of the hypervisor that is executed by the guest's processor in privileged mode: it takes every exception,
 * hands it to the guest's kernel in user mode, and takes the kernel's hypercalls. monitor.py has the words of it:
 *
 *   arm-none-eabi-gcc -c -march=armv7-a -o monitor.o monitor.S; arm-none-eabi-objcopy -O binary monitor.o monitor.bin
 *
 * The stack pointers of all modes but user mode hold the address of the guest's frame, as the monitor has it mapped.
 * The monitor's own words are right below. What is on the guest's page is the guest's to change at any time.
 */
        .equ    VECTORS, 0xffff0000
        .equ    FRAME, 0xffff2000               /* r0 to r14, pc, cpsr, and what is below */
        .equ    FRAME_OF_GUEST, 0xffe00000      /* the same page, as the guest's kernel has it mapped */
        .equ    CPU_INTERFACE, 0xffff3000       /* of the GIC */
        .equ    IAR, 0x0c
        .equ    EOIR, 0x10
        .equ    NO_INTERRUPT, 1023
        .equ    HVC, 0xe140ea71                 /* hvc #0xea1 */
        .equ    IRET, 51
        .equ    SWITCH, 53

        .equ    FRAME_PC, 60
        .equ    FRAME_CPSR, 64
        .equ    FRAME_KIND, 68
        .equ    FRAME_STATUS, 72
        .equ    FRAME_ADDRESS, 76
        .equ    FRAME_IN_KERNEL, 80             /* 1 for an exception of the kernel itself */

        .equ    SAVED_R0, -4
        .equ    SAVED_R1, -8
        .equ    IN_KERNEL, -12
        .equ    ENTRY, -16                      /* where the guest's kernel takes exceptions */
        .equ    KERNEL_DOMAINS, -20
        .equ    USER_DOMAINS, -24
        .equ    ACTION, -28                     /* what a hypercall leaves to do: see ACT_ */
        .equ    TABLE, -32                      /* TTBR0 */
        .equ    SLOT, -36                       /* the number of the table of the process, or NO_SLOT */
        .equ    NO_SLOT, 0xff
        .equ    LOOK, -40                       /* not 0 if the interrupt's line may still be up for no event */
        .equ    SLOTS, 0x1000                   /* below the frame: where the tables of processes are, 0 for none */
        .equ    MOST_SLOTS, 128
        .equ    REFUSED, 21                     /* its complement is -EINVAL */
        .equ    ACT_TABLE, 1
        .equ    ACT_CODE, 2
        .equ    ACT_UPCALL, 8                   /* an event for the kernel itself, which wants it now */

        .equ    KIND_INTERRUPT, 4

        .equ    KERNEL_CPSR, 0xd0               /* user mode, without interrupts */

        .text
vectors:
        b       .
        b       undefined
        b       supervisor
        b       prefetch
        b       data
        b       .
        b       interrupt
        b       .

        .macro  save, beyond
        sub     lr, lr, #\beyond
        stmia   sp, {r0-r14}^
        nop
        .endm

        .macro  acknowledge                     /* If there is an interrupt, NE, and R0 is its kind. */
        ldr     r0, =CPU_INTERFACE
        ldr     r1, [r0, #IAR]
        ubfx    r2, r1, #0, #10
        ldr     r3, =NO_INTERRUPT
        cmp     r2, r3
        strne   r1, [r0, #EOIR]
        movne   r0, #KIND_INTERRUPT
        .endm

undefined:
        save    4
        mov     r0, #0
        b       bounce

supervisor:
        str     r0, [sp, #SAVED_R0]
        ldr     r0, [sp, #IN_KERNEL]
        cmp     r0, #0
        ldr     r0, [sp, #SAVED_R0]
        bne     hypercall
        stmia   sp, {r0-r14}^
        nop
        mov     r0, #1
        b       bounce

prefetch:
        save    4
        mrc     p15, 0, r0, c5, c0, 1
        mrc     p15, 0, r1, c6, c0, 2
        str     r0, [sp, #FRAME_STATUS]
        str     r1, [sp, #FRAME_ADDRESS]
        mov     r0, #2
        b       bounce

data:
        save    8
        mrc     p15, 0, r0, c5, c0, 0
        mrc     p15, 0, r1, c6, c0, 0
        str     r0, [sp, #FRAME_STATUS]
        str     r1, [sp, #FRAME_ADDRESS]
        mov     r0, #3
        b       bounce

interrupt:                                      /* The guest clears its cause, so it ends here for the controller. */
        save    4
        acknowledge
        strne   r0, [sp, #LOOK]
        bne     bounce
        ldmia   sp, {r0-r14}^
        nop
        movs    pc, lr

bounce:                                         /* r0 is the kind of exception */
        str     r0, [sp, #FRAME_KIND]
        mrs     r1, spsr
        str     lr, [sp, #FRAME_PC]
        str     r1, [sp, #FRAME_CPSR]
        ldr     r1, [sp, #IN_KERNEL]
        str     r1, [sp, #FRAME_IN_KERNEL]
        mov     r1, #1
        str     r1, [sp, #IN_KERNEL]
        ldr     r1, [sp, #KERNEL_DOMAINS]
        mcr     p15, 0, r1, c3, c0, 0
        isb
enter:
        mov     r1, #KERNEL_CPSR
        msr     spsr_cxsf, r1
        ldr     lr, [sp, #ENTRY]
        ldr     r1, =FRAME_OF_GUEST
        movs    pc, lr

hypercall:
        cmp     r12, #IRET
        beq     iret
        cmp     r12, #SWITCH
        beq     switch
        .inst   HVC
        str     r0, [sp, #SAVED_R0]
        ldr     r0, [sp, #ACTION]
        cmp     r0, #0
        bne     act
        ldr     r0, [sp, #SAVED_R0]
        movs    pc, lr

act:                                            /* The TLB is flushed, but for an event alone. */
        cmp     r0, #ACT_UPCALL
        beq     upcall
        str     r1, [sp, #SAVED_R1]
        tst     r0, #ACT_TABLE
        ldrne   r1, [sp, #TABLE]
        mcrne   p15, 0, r1, c2, c0, 0
        movne   r1, #0
        mcrne   p15, 0, r1, c13, c0, 1
        movne   r1, #NO_SLOT
        strne   r1, [sp, #SLOT]
        mov     r1, #0
        dsb
        mcr     p15, 0, r1, c8, c7, 0
        tst     r0, #ACT_CODE
        mcrne   p15, 0, r1, c7, c5, 0
        dsb
        isb
        str     r1, [sp, #ACTION]
        ldr     r1, [sp, #SAVED_R1]
        tst     r0, #ACT_UPCALL
        bne     upcall
        ldr     r0, [sp, #SAVED_R0]
        movs    pc, lr

upcall:                                         /* The kernel goes on where it takes exceptions. */
        mov     r0, #0
        str     r0, [sp, #ACTION]
        ldr     r0, [sp, #SAVED_R0]
        stmia   sp, {r0-r14}^
        nop
        mrs     r1, spsr
        str     lr, [sp, #FRAME_PC]
        str     r1, [sp, #FRAME_CPSR]
        mov     r0, #1
        str     r0, [sp, #FRAME_IN_KERNEL]
        mov     r0, #KIND_INTERRUPT
        str     r0, [sp, #FRAME_KIND]
        str     r0, [sp, #LOOK]
        b       enter

switch:                                         /* To the table of another process: r0 is its number. */
        cmp     r0, #MOST_SLOTS
        bhs     refuse
        str     r1, [sp, #SAVED_R1]
        sub     r1, sp, #SLOTS
        ldr     r1, [r1, r0, lsl #2]
        cmp     r1, #0
        beq     refuse_r1
        str     r0, [sp, #SLOT]
        mov     r0, #0
        mcr     p15, 0, r0, c13, c0, 1          @ no identifier while there are both tables
        isb
        mcr     p15, 0, r1, c2, c0, 0
        isb
        ldr     r0, [sp, #SLOT]
        add     r0, r0, #1
        mcr     p15, 0, r0, c13, c0, 1
        isb
        ldr     r1, [sp, #SAVED_R1]
        mov     r0, #0
        movs    pc, lr
refuse_r1:
        ldr     r1, [sp, #SAVED_R1]
refuse:
        mvn     r0, #REFUSED
        movs    pc, lr

iret:                                           /* To a process: user mode, with interrupts. */
        ldr     r0, [sp, #FRAME_IN_KERNEL]
        cmp     r0, #0
        bne     return
        ldr     r0, [sp, #LOOK]
        cmp     r0, #0
        bne     look
leave:
        ldr     r0, [sp, #FRAME_CPSR]
        bic     r0, r0, #0xdf
        bic     r0, r0, #0x01000000
        orr     r0, r0, #0x10
        msr     spsr_cxsf, r0
        mov     r0, #0
        str     r0, [sp, #IN_KERNEL]
        ldr     r0, [sp, #USER_DOMAINS]
        mcr     p15, 0, r0, c3, c0, 0
        isb
        ldr     lr, [sp, #FRAME_PC]
        ldmia   sp, {r0-r14}^
        nop
        movs    pc, lr

look:                                           /* To read it lets the controller look at the line again. */
        acknowledge
        strne   r0, [sp, #FRAME_KIND]
        bne     enter                           /* The frame has the process. */
        mov     r0, #0
        str     r0, [sp, #LOOK]
        b       leave

return:                                         /* From an event of the kernel's own to where it was. */
        mov     r0, #0
        str     r0, [sp, #FRAME_IN_KERNEL]
        ldr     r0, [sp, #FRAME_CPSR]
        bic     r0, r0, #0xff
        bic     r0, r0, #0x01000000
        orr     r0, r0, #KERNEL_CPSR
        msr     spsr_cxsf, r0
        ldr     lr, [sp, #FRAME_PC]
        ldmia   sp, {r0-r14}^
        nop
        movs    pc, lr
        .ltorg

/*
 * The beginning. It is executed once, at its physical address and with the MMU off: r0 is TTBR1, r1 TTBR0, r2 SCTLR,
 * r3 DACR, r4 where the guest's kernel begins in user mode, r5 its stack pointer.
 */
        .balign 0x400
begin:
        msr     cpsr_c, #0xd3
        mcr     p15, 0, r0, c2, c0, 1
        mcr     p15, 0, r1, c2, c0, 0
        mov     r0, #1
        mcr     p15, 0, r0, c2, c0, 2           @ TTBCR: TTBR0 is for the lower half
        mcr     p15, 0, r3, c3, c0, 0
        mov     r0, #0
        mcr     p15, 0, r0, c13, c0, 1          @ CONTEXTIDR
        mcr     p15, 0, r0, c13, c0, 2          @ TPIDRURW, TPIDRURO
        mcr     p15, 0, r0, c13, c0, 3
        mcr     p15, 0, r0, c9, c14, 0          @ PMUSERENR
        mcr     p15, 0, r0, c14, c1, 0          @ CNTKCTL
        dsb
        mcr     p15, 0, r0, c8, c7, 0
        mcr     p15, 0, r0, c7, c5, 0
        dsb
        mcr     p15, 0, r2, c1, c0, 0
        isb
        ldr     r0, =VECTORS
        adr     r1, upper
        ubfx    r1, r1, #0, #12
        orr     pc, r0, r1
upper:
        ldr     r0, =FRAME
        msr     cpsr_c, #0xdb
        mov     sp, r0
        msr     cpsr_c, #0xd7
        mov     sp, r0
        msr     cpsr_c, #0xd2
        mov     sp, r0
        msr     cpsr_c, #0xd3
        mov     sp, r0
        str     r5, [sp]
        ldmia   sp, {r13}^
        nop
        mov     r0, #KERNEL_CPSR
        msr     spsr_cxsf, r0
        mov     lr, r4
        movs    pc, lr
        .ltorg
