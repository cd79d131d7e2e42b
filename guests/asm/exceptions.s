@ Exceptions: a program in user mode provokes them, handlers in the banked modes report and repair them.
@ Flat, loaded and entered at 0, where the vectors are. The MMU is off.
@
@ Every handler checks the mode that it runs in and the one that it came from, prints a line on the UART, and sets
@ its bit in r10. The program at the end asks for all of them.

        .equ    USER, 0x10
        .equ    SVC, 0x13
        .equ    ABORT, 0x17
        .equ    UNDEFINED, 0x1b
        .equ    NO_INTERRUPTS, 0xc0     @ the I and F bits
        .equ    SCTLR_A, 2              @ an access that is not aligned aborts
        .equ    UARTFR, 0x18            @ the flags of the UART
        .equ    UARTCR, 0x30            @ its control register
        .equ    TXFF, 0x20              @ in UARTFR: the transmit FIFO is full
        .equ    SYS_EXIT, 0x18

        .equ    SAW_SVC, 1
        .equ    SAW_UNDEFINED, 2
        .equ    SAW_PRIVILEGED, 4
        .equ    SAW_PREFETCH_ABORT, 8
        .equ    SAW_DATA_ABORT, 16

vectors:
        b       reset
        b       undefined
        b       supervisor_call
        b       prefetch_abort
        b       data_abort
        b       wrong                   @ not used
        b       wrong                   @ IRQ
        b       wrong                   @ FIQ

@ The current mode is \current and the exception came from user mode, or else it is wrong. Changes r0.
        .macro  check_modes current
        mrs     r0, cpsr
        and     r0, r0, #0x9f           @ the I bit is set on entry
        cmp     r0, #(0x80 + \current)
        bne     wrong
        mrs     r0, spsr
        and     r0, r0, #0x1f
        cmp     r0, #USER
        bne     wrong
        .endm

        .macro  say label
        adr     r0, \label
        bl      print
        .endm

        .macro  set_stack mode, top
        msr     cpsr_c, #(NO_INTERRUPTS + \mode)
        mov     sp, #\top
        .endm

reset:
        set_stack UNDEFINED, 0x10000
        set_stack ABORT, 0x14000
        set_stack SVC, 0x18000
        mrc     p15, 0, r0, c1, c0, 0
        orr     r0, r0, #SCTLR_A
        mcr     p15, 0, r0, c1, c0, 0
        ldr     r0, uart
        ldr     r1, uart_enable
        str     r1, [r0, #UARTCR]
        mov     r10, #0
        msr     cpsr_c, #(NO_INTERRUPTS + USER)

program:
        mov     sp, #0x1c000

@ A supervisor call: the handler doubles r0. The flags come back.
        mov     r0, #21
        cmp     r0, r0
        svc     7
        bne     wrong_in_user_mode
        cmp     r0, #42
        bne     wrong_in_user_mode

@ An undefined instruction, and one that is undefined in this mode: both are skipped.
        udf     #0
        mrc     p15, 0, r0, c1, c0, 0

@ A breakpoint is a prefetch abort.
        bkpt    #0

@ A load from an address that is not aligned: the handler aligns r2, the load is done again. The first time it must
@ not have changed its base register.
        adr     r2, data
        add     r2, r2, #2
        mov     r1, #0
        ldr     r1, [r2], #4
        ldr     r0, data
        cmp     r0, r1
        bne     wrong_in_user_mode
        adr     r0, data_end
        cmp     r0, r2
        bne     wrong_in_user_mode

        cmp     sp, #0x1c000            @ nobody has touched it
        bne     wrong_in_user_mode
        cmp     r10, #31
        bne     wrong_in_user_mode
        svc     0

wrong_in_user_mode:
        svc     1

supervisor_call:
        stmfd   sp!, {r0, r1, lr}
        check_modes SVC
        ldr     r0, [lr, #-4]
        bic     r0, r0, #0xff000000
        cmp     r0, #7
        bne     leave
        say     svc_text
        orr     r10, r10, #SAW_SVC
        ldmfd   sp!, {r0, r1, lr}
        add     r0, r0, r0
        movs    pc, lr

undefined:
        stmfd   sp!, {r0, r1, lr}
        check_modes UNDEFINED
        ldr     r0, [lr, #-4]
        ldr     r1, privileged
        cmp     r0, r1
        beq     undefined_in_user_mode
        ldr     r1, never_defined
        cmp     r0, r1
        bne     wrong
        say     undefined_text
        orr     r10, r10, #SAW_UNDEFINED
        ldmfd   sp!, {r0, r1, pc}^      @ to the instruction after

undefined_in_user_mode:
        say     privileged_text
        orr     r10, r10, #SAW_PRIVILEGED
        ldmfd   sp!, {r0, r1, pc}^

prefetch_abort:
        stmfd   sp!, {r0, r1, lr}       @ lr is 4 beyond the instruction
        check_modes ABORT
        say     prefetch_text
        orr     r10, r10, #SAW_PREFETCH_ABORT
        ldmfd   sp!, {r0, r1, pc}^

data_abort:
        sub     lr, lr, #8              @ lr was 8 beyond the instruction
        stmfd   sp!, {r0, r1, lr}
        check_modes ABORT
        mrc     p15, 0, r0, c5, c0, 0   @ the fault status: 1 is an alignment fault
        and     r0, r0, #0x0f
        cmp     r0, #1
        bne     wrong
        mrc     p15, 0, r0, c6, c0, 0   @ the fault address
        cmp     r0, r2
        bne     wrong
        bic     r2, r2, #3
        say     data_text
        orr     r10, r10, #SAW_DATA_ABORT
        ldmfd   sp!, {r0, r1, pc}^      @ to the instruction again

@ The end: after svc 0 the exit is a good one. Semihosting is a supervisor call too, but the machine sees it first.
leave:
        cmp     r0, #0
        bne     wrong
        say     ok_text
        ldr     r1, application_exit
        b       exit
wrong:
        say     wrong_text
        ldr     r1, runtime_error
exit:
        mov     r0, #SYS_EXIT
        svc     0x123456

@ Writes the text at r0 to the UART. Changes r0, r1 and the flags.
print:
        stmfd   sp!, {r2}
        ldr     r1, uart
print_next:
        ldr     r2, [r1, #UARTFR]
        tst     r2, #TXFF
        bne     print_next
        ldrb    r2, [r0], #1
        cmp     r2, #0
        strbne  r2, [r1]
        bne     print_next
        ldmfd   sp!, {r2}
        bx      lr

uart:
        .word   0x101f1000              @ UART0 of the Versatile/PB, its data register
uart_enable:
        .word   0x301                   @ receiver, transmitter and the whole
never_defined:
        udf     #0
privileged:
        mrc     p15, 0, r0, c1, c0, 0
application_exit:
        .word   0x20026                 @ ADP_Stopped_ApplicationExit
runtime_error:
        .word   0x20023                 @ ADP_Stopped_RunTimeErrorUnknown
data:
        .word   0x12345678
data_end:

        .macro  text label, string
        .balign 4
\label:
        .asciz  "\string"
        .endm

        text    svc_text, "supervisor call: ok\n"
        text    undefined_text, "undefined instruction: ok\n"
        text    privileged_text, "privileged instruction in user mode: ok\n"
        text    prefetch_text, "prefetch abort: ok\n"
        text    data_text, "data abort: ok\n"
        text    ok_text, "exceptions: ok\n"
        text    wrong_text, "exceptions: wrong\n"
