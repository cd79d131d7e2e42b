/* The programs, as ELF executables, and the table by which exec() finds them. */
        .macro  program name
        .pushsection .programs, "a"
        .balign 4
file_\name:
        .incbin "\name\().elf"
        .popsection
        .word   1f
        .word   file_\name
        .pushsection .rodata.names, "a"
1:      .asciz  "\name"
        .popsection
        .endm

        .section .rodata
        .balign 4
        .global programs
programs:
        program init
        program sieve
        program consumer
        program family
        program coder
        program memory
        program sleepers
        program breaker
        .word   0
