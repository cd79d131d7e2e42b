/*
 * Takeuchi's and Ackermann's functions: calls with arguments that are calls, recursion thousands of frames deep.
 */
#include "kernel.h"

#define ROUNDS 4300

static int tak(int x, int y, int z)
{
    if (y >= x)
        return z;
    return tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

static int ackermann(int m, int n)
{
    if (m == 0)
        return n + 1;
    if (n == 0)
        return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

static uint32_t round_of_recursion(void)
{
    int unit = one;

    return 1000 * ackermann(3, 7 * unit) + tak(18, 12, 6 * unit);
}

int main(int argc, char **argv)
{
    return run_rounds("tak", round_of_recursion, 1021007, ROUNDS, argc, argv);
}
