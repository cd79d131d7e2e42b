@ Self-modifying code, with no cache maintenance: the caches are off after reset, and between a store and the
@ execution of what it wrote there is always a return from a subroutine, which refills the pipeline.
@ Flat, loaded and entered at 0x8000.
@
@ Every case runs a piece of code first, so that a translator has seen it, then patches it and runs it again.

        .equ    SYS_WRITE0, 0x04
        .equ    SYS_EXIT, 0x18

        .macro  say text
        mov     r0, #SYS_WRITE0
        adr     r1, \text
        svc     0x123456
        .endm

        .macro  must_be register, value
        cmp     \register, #\value
        bne     wrong
        .endm

start:
        ldr     sp, stack_top

@ The loop is on this page; its ADD is patched from 1 to 2 to 3 between runs.
        mov     r4, #0
        bl      near_loop
        must_be r4, 10
        adr     r0, near_patch
        ldr     r1, add_2
        bl      patch
        bl      near_loop
        must_be r4, 30
        adr     r0, near_patch
        ldr     r1, add_3
        bl      patch
        bl      near_loop
        must_be r4, 60
        say     same_page

@ The same on another page.
        mov     r4, #0
        bl      far_loop
        must_be r4, 10
        ldr     r0, far_patch_address
        ldr     r1, add_2
        bl      patch
        bl      far_loop
        must_be r4, 30
        say     other_page

@ A loop that patches its own body in every pass: the immediate of its ADD counts 1, 2 ... 100; the sum is 5050.
        mov     r4, #0
        ldr     r0, far_patch_address
        ldr     r1, add_1
        mov     r6, #100
again:
        bl      patch
        mov     r5, #1
        bl      far_patch               @ one pass
        add     r1, r1, #1
        subs    r6, r6, #1
        bne     again
        ldr     r2, sum_to_100
        cmp     r4, r2
        bne     wrong
        say     every_pass

@ A branch becomes a no-op and the other way round.
        mov     r4, #0
        bl      skip_or_not
        must_be r4, 1
        adr     r0, skip_patch
        ldr     r7, [r0]
        ldr     r1, no_op
        bl      patch
        bl      skip_or_not
        must_be r4, 12
        mov     r1, r7
        bl      patch
        bl      skip_or_not
        must_be r4, 13
        say     branch

@ A literal: the code stays, the constant that it loads changes.
        bl      load_literal
        must_be r0, 0x55
        adr     r0, literal
        mov     r1, #0x66
        bl      patch
        bl      load_literal
        must_be r0, 0x66
        say     constant

@ A byte and a halfword of an instruction: the immediate becomes 7, then the ADD becomes a SUB.
        mov     r4, #0
        adr     r0, near_patch
        mov     r1, #7
        strb    r1, [r0]
        bl      near_loop
        must_be r4, 70
        adr     r0, near_patch
        ldr     r1, subtract
        mov     r1, r1, lsr #16
        strh    r1, [r0, #2]
        bl      near_loop
        must_be r4, 0
        say     parts

        ldr     r2, passes              @ near_loop has run five times
        must_be r2, 50
        say     all_ok
        ldr     r1, application_exit
        b       exit
wrong:
        say     not_ok
        ldr     r1, runtime_error
exit:
        mov     r0, #SYS_EXIT
        svc     0x123456

patch:
        str     r1, [r0]
        bx      lr

@ Adds to r4 ten times. The word beside it changes in every pass: a store to the page, but to no instruction.
near_loop:
        mov     r5, #10
        adr     r3, passes
near_patch:
        add     r4, r4, #1
        ldr     r2, [r3]
        add     r2, r2, #1
        str     r2, [r3]
        subs    r5, r5, #1
        bne     near_patch
        bx      lr
passes:
        .word   0

@ Adds 1 or 12 to r4.
skip_or_not:
        add     r4, r4, #1
skip_patch:
        b       skipped
        add     r4, r4, #10
skipped:
        bx      lr

load_literal:
        ldr     r0, literal
        bx      lr
literal:
        .word   0x55

add_1:  .word   0xe2844001              @ add r4, r4, #1
add_2:  .word   0xe2844002
add_3:  .word   0xe2844003
subtract:
        .word   0xe2444007              @ sub r4, r4, #7
no_op:  .word   0xe1a00000              @ mov r0, r0
sum_to_100:
        .word   5050
stack_top:
        .word   0x20000
far_patch_address:
        .word   far_patch
application_exit:
        .word   0x20026                 @ ADP_Stopped_ApplicationExit
runtime_error:
        .word   0x20023                 @ ADP_Stopped_RunTimeErrorUnknown

        .macro  text label, string
        .balign 4
\label:
        .asciz  "\string"
        .endm

        text    same_page, "same page: ok\n"
        text    other_page, "other page: ok\n"
        text    every_pass, "patched in every pass: ok\n"
        text    branch, "branch and no-op: ok\n"
        text    constant, "literal: ok\n"
        text    parts, "byte and halfword: ok\n"
        text    all_ok, "smc_asm: ok\n"
        text    not_ok, "smc_asm: wrong\n"

        .balign 4096                    @ the other page, at 0x9000
far_loop:
        mov     r5, #10
far_patch:
        add     r4, r4, #1
        subs    r5, r5, #1
        bne     far_patch
        bx      lr
