/*
 * Whole pages, 32 bytes at a time: zero_page(page), copy_page(to, from).
 */
#include "layout.h"

        .text
        .global zero_page
zero_page:
        stmfd   sp!, {r4-r8, lr}
        add     lr, r0, #PAGE
        mov     r1, #0
        mov     r2, #0
        mov     r3, #0
        mov     r4, #0
        mov     r5, #0
        mov     r6, #0
        mov     r7, #0
        mov     r8, #0
1:      stmia   r0!, {r1-r8}
        cmp     r0, lr
        blo     1b
        ldmfd   sp!, {r4-r8, pc}

        .global copy_page
copy_page:
        stmfd   sp!, {r4-r9, lr}
        add     lr, r0, #PAGE
1:      ldmia   r1!, {r2-r9}
        stmia   r0!, {r2-r9}
        cmp     r0, lr
        blo     1b
        ldmfd   sp!, {r4-r9, pc}
