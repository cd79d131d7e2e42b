/* exec() enters here, with the argument in r0. */
        .section .text.start, "ax"
        .global _start
_start:
        bl      main
        b       exit
