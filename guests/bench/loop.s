@ A tight loop for benchmarks: twelve instructions, twenty million times. Flat, loaded and entered at 0x8000.
@
@ Arithmetic, logic, a shift by an immediate, a comparison, a conditional instruction, a store and a load; every
@ instruction depends on those before, and the checksum at the end on all of them.

        .equ    SYS_WRITE0, 0x04
        .equ    SYS_EXIT, 0x18

start:
        mov     r0, #0x1400000          @ iterations: 20,971,520
        mov     r1, #1
        mov     r2, #0
        mov     r3, #0
        mov     r4, #0x20000            @ a word on another page
        mov     r5, #0
        mov     r6, #0
loop:
        add     r1, r1, r0
        eor     r2, r2, r1, lsl #3
        str     r2, [r4]
        sub     r3, r3, r2
        orr     r6, r1, #0x0f
        cmp     r3, r1
        addhi   r5, r5, #1
        rsb     r3, r3, r6, ror #7
        ldr     r6, [r4]
        add     r2, r6, r5
        subs    r0, r0, #1
        bne     loop

        eor     r1, r1, r2
        eor     r1, r1, r3
        add     r1, r1, r5
        ldr     r2, checksum
        cmp     r1, r2
        bne     wrong
        adr     r1, ok_text
        ldr     r3, application_exit
        b       leave
wrong:
        adr     r1, wrong_text
        ldr     r3, runtime_error
leave:
        mov     r0, #SYS_WRITE0
        svc     0x123456
        mov     r0, #SYS_EXIT
        mov     r1, r3
        svc     0x123456

checksum:
        .word   0x069ae04a
application_exit:
        .word   0x20026                 @ ADP_Stopped_ApplicationExit
runtime_error:
        .word   0x20023                 @ ADP_Stopped_RunTimeErrorUnknown
ok_text:
        .asciz  "loop: ok\n"
        .balign 4
wrong_text:
        .asciz  "loop: wrong\n"
