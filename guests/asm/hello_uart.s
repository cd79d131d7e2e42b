@ The serial port by hand: switches the PL011 on, waits for room, writes. Flat, loaded and entered at 0x8000.

        .equ    UARTDR, 0x00            @ data
        .equ    UARTFR, 0x18            @ flags
        .equ    UARTLCR_H, 0x2c         @ line control
        .equ    UARTCR, 0x30            @ control
        .equ    TXFF, 0x20              @ in UARTFR: the transmit FIFO is full
        .equ    SYS_EXIT, 0x18

start:
        ldr     r4, uart
        mov     r0, #0x70               @ 8 bits, no parity, FIFOs on
        str     r0, [r4, #UARTLCR_H]
        ldr     r0, enable
        str     r0, [r4, #UARTCR]

        adr     r5, text
next:
        ldrb    r0, [r5], #1
        cmp     r0, #0
        beq     exit
full:
        ldr     r1, [r4, #UARTFR]
        tst     r1, #TXFF
        bne     full
        str     r0, [r4, #UARTDR]
        b       next

exit:
        mov     r0, #SYS_EXIT
        ldr     r1, application_exit
        svc     0x123456

uart:
        .word   0x101f1000              @ UART0 of the Versatile/PB
enable:
        .word   0x301                   @ receiver, transmitter and the whole
application_exit:
        .word   0x20026                 @ ADP_Stopped_ApplicationExit
text:
        .asciz  "Hello from the UART!\n"
