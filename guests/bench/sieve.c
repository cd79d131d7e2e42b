/*
 * The sieve of Eratosthenes over a quarter of a megabyte of bytes, one for each odd number: stores with many strides.
 */
#include "kernel.h"

#define ROUNDS 2700
#define LIMIT 500000

static uint8_t composite[LIMIT / 2]; /* of 2 i + 1 */

static uint32_t round_of_sieve(void)
{
    uint32_t limit = LIMIT * one, count = 1; /* 2 */

    for (uint32_t i = 0; i < limit / 2; i++)
        composite[i] = 0;
    for (uint32_t n = 3; n < limit; n += 2) {
        if (composite[n / 2])
            continue;
        count++;
        if (n < 0x10000)
            for (uint32_t multiple = n * n; multiple < limit; multiple += 2 * n)
                composite[multiple / 2] = 1;
    }
    return count;
}

/* 41,538 primes are below 500,000. */
int main(int argc, char **argv)
{
    return run_rounds("sieve", round_of_sieve, 41538, ROUNDS, argc, argv);
}
