/*
 * The sieve of Eratosthenes, again and again until the timer has interrupted it: so that it shares the processor with
 * others whatever the speed of that is. Its status is the number of primes below the argument.
 */
#include "minios.h"

#define MOST 3000

static char composite[MOST];

static int count_primes(int end)
{
    int primes = 0;
    memset(composite, 0, sizeof composite);
    for (int n = 2; n < end; n++) {
        if (composite[n])
            continue;
        primes++;
        for (int i = n * n; i < end; i += n)
            composite[i] = 1;
    }
    return primes;
}

int main(int end)
{
    int primes = count_primes(end);
    while (!preempted())
        if (count_primes(end) != primes)
            return -1;
    return primes;
}
