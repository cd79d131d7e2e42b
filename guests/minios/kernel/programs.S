/* The programs, as ELF executables, and the table by which exec() finds them. */
        .macro  program name, file
        .pushsection .programs, "a"
        .balign 4
file_\name:
        .incbin "\file\().elf"
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
#ifdef BENCH
        program init, bench
#else
        program init, init
        program sieve, sieve
        program consumer, consumer
        program family, family
        program coder, coder
        program memory, memory
        program sleepers, sleepers
        program breaker, breaker
#endif
        .word   0
