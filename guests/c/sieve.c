/*
 * The sieve of Eratosthenes over a bit set of odd numbers: shifts by a register, read-modify-write of words.
 *
 * sieve [limit]    counts the primes below `limit`
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    long limit, primes;
} known[] = {{100, 25}, {1000, 168}, {10000, 1229}, {100000, 9592}, {1000000, 78498}, {20000000, 1270607}};

/* Bit i of the set stands for the number 2i + 1; a set bit means composite. */
static void sieve(uint32_t *composite, long limit)
{
    composite[0] = 1; /* the number 1 */
    for (long n = 3; n * n < limit; n += 2) {
        if (composite[n / 2 / 32] >> (n / 2 % 32) & 1)
            continue;
        for (long i = n * n / 2; i < limit / 2; i += n)
            composite[i / 32] |= 1u << (i % 32);
    }
}

int main(int argc, char **argv)
{
    long limit = argc > 1 ? atol(argv[1]) : 10000;
    uint32_t *composite = calloc(limit / 64 + 1, sizeof *composite);
    long primes = 1, largest = 2; /* 2 is the only even prime */

    if (composite == NULL) {
        puts("out of memory");
        return 1;
    }
    sieve(composite, limit);
    for (long i = 0; i < limit / 2; i++) {
        if (composite[i / 32] >> (i % 32) & 1)
            continue;
        primes++;
        largest = 2 * i + 1;
    }
    printf("%ld primes below %ld, the largest is %ld\n", primes, limit, largest);
    free(composite);

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].limit == limit && known[i].primes != primes) {
            printf("wrong, should be %ld\n", known[i].primes);
            return 1;
        }
    }
    puts("sieve: ok");
    return 0;
}
