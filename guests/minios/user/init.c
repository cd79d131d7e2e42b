/*
 * The first process: starts all others. When it ends, so does the system.
 *
 * Nothing that is printed depends on when the timer comes. What runs at the same time as others prints nothing: its
 * status is printed here, when all is done.
 */
#include "minios.h"

#define SIEVES 3

int main(void)
{
    int sieves[SIEVES];
    for (int i = 0; i < SIEVES; i++)
        sieves[i] = spawn("sieve", 1000 * (i + 1));
    print("init: process %d, with %d sieves in the background\n", getpid(), SIEVES);

    static const char *const programs[] = {"consumer", "family", "memory", "coder", "breaker"};
    for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++) {
        int status = result(spawn(programs[i], 0));
        if (status)
            print("init: %s failed: %d\n", programs[i], status);
    }

    for (int i = 0; i < SIEVES; i++)
        print("init: sieve %d found %d primes\n", i + 1, result(sieves[i]));
    if (result(spawn("sleepers", 0)))
        print("init: sleepers failed\n");
    print("init: exec of nothing is an error: %s\n", yes(exec("nothing", 0) == -1));
    print("init: waiting for nobody is an error: %s\n", yes(wait(1, &(int){0}) == -1));
    return 0;
}
