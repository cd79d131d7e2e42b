/*
 * What the kernels share: rounds, the check of their results, and numbers that look random.
 *
 *     <kernel> [rounds]
 *
 * Every round of a kernel computes the same value, which is written in its source, so a run of any length is checked.
 * Without an argument it runs for its ROUNDS, a second or so when compiled for the host.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* 1. Rounds make their input from it; it is volatile, so that no compiler knows or keeps the result of a round. */
static volatile uint32_t one = 1;

/* Marsaglia's xorshift; the state is not 0. */
static inline uint32_t next_random(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* Mixes a value into a checksum. */
static inline uint32_t mix(uint32_t sum, uint32_t value)
{
    return (sum << 5 | sum >> 27) ^ value;
}

/* Fills the buffer with words picked unevenly from a short list. */
static inline void write_words(uint8_t *text, int size)
{
    static const char *const words[] = {
        "the ", "of ", "and ", "a ", "register ", "to ", "in ", "block ", "is ", "branch ", "memory ", "it ",
        "translator ", "condition ", "that ", "page\n", "loaded ", "for ", "host ", "guest ", "code, ", "with ",
        "Stack ", "frame. ", "as ", "0x1F ", "interrupt ", "by ", "cache ", "store ", "on ", "machine ",
    };
    uint32_t random = 1;
    int used = 0;

    for (;;) {
        uint32_t choice = next_random(&random);
        for (const char *word = words[choice >> 8 & choice >> 16 & 31]; *word != '\0'; word++) {
            if (used == size)
                return;
            text[used++] = *word;
        }
    }
}

/* Runs the rounds and says how it went: the exit code of the program. */
static inline int run_rounds(const char *name, uint32_t (*round)(void), uint32_t expected, int rounds, int argc,
                             char **argv)
{
    if (argc > 1)
        rounds = atoi(argv[1]);
    for (int i = 0; i < rounds; i++) {
        uint32_t result = round();
        if (result != expected) {
            printf("%s: round %d is 0x%08lx, should be 0x%08lx\n", name, i, (unsigned long)result,
                   (unsigned long)expected);
            return 1;
        }
    }
    printf("%s: ok\n", name);
    return 0;
}

#endif
