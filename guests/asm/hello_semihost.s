@ Semihosting by hand: a string, single characters, the exit. Flat, loaded and entered at 0x8000.

        .equ    SYS_WRITEC, 0x03
        .equ    SYS_WRITE0, 0x04
        .equ    SYS_EXIT, 0x18

start:
        mov     r0, #SYS_WRITE0         @ r1 is the address of the text
        adr     r1, text
        svc     0x123456

        adr     r4, letters
next:
        ldrb    r0, [r4]
        cmp     r0, #0
        beq     exit
        mov     r0, #SYS_WRITEC         @ r1 is the address of the character
        mov     r1, r4
        svc     0x123456
        add     r4, r4, #1
        b       next

exit:
        mov     r0, #SYS_EXIT
        ldr     r1, application_exit
        svc     0x123456

application_exit:
        .word   0x20026                 @ ADP_Stopped_ApplicationExit
text:
        .asciz  "Hello from semihosting, "
letters:
        .asciz  "letter by letter!\n"
