/*
 * Fibonacci numbers by plain recursion: calls, returns, and saved registers.
 */
#include "kernel.h"

#define ROUNDS 7000

static uint32_t fib(uint32_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint32_t round_of_fib(void)
{
    return fib(27 * one);
}

int main(int argc, char **argv)
{
    return run_rounds("fib", round_of_fib, 196418, ROUNDS, argc, argv);
}
