/*
 * Arithmetic of 64 bits: shifts, products, quotients and remainders, most of which take a 32-bit machine several
 * instructions or a call of the compiler's library.
 */
#include "kernel.h"

#define ROUNDS 13000

static uint64_t next_random64(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* base to the power of exponent, modulo a modulus of 32 bits. */
static uint32_t power(uint32_t base, uint32_t exponent, uint32_t modulus)
{
    uint64_t result = 1, square = base % modulus;

    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1)
            result = result * square % modulus;
        square = square * square % modulus;
    }
    return result;
}

/* The high half of a product of 128 bits. */
static uint64_t multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
    uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
    uint64_t other = a_low * b_high + (uint32_t)middle;

    return a_high * b_high + (middle >> 32) + (other >> 32);
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The integer part of the square root, a bit at a time. */
static uint32_t square_root(uint64_t x)
{
    uint64_t root = 0;

    for (uint64_t bit = 1ull << 62; bit != 0; bit >>= 2)
        if (x >= root + bit) {
            x -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    return root;
}

static uint32_t round_of_arithmetic(void)
{
    uint64_t random = one, sum = 0;

    for (int i = 0; i < 1500; i++) {
        uint64_t x = next_random64(&random), y = next_random64(&random);
        int by = y & 63;

        sum += multiply_high(x, y) ^ x * y;
        sum ^= (x << by) + (uint64_t)((int64_t)y >> by);
        sum += square_root(x);
        sum ^= (int64_t)x / (int64_t)(y >> 33 | 1);
    }
    for (int i = 0; i < 40; i++) {
        uint64_t x = next_random64(&random), y = next_random64(&random);

        sum += greatest_common_divisor(x * 12, y * 18);
        sum ^= (uint64_t)power(x, y >> 32, 4294967291u) << 16; /* a prime */
    }
    return sum ^ sum >> 32;
}

int main(int argc, char **argv)
{
    return run_rounds("arith64", round_of_arithmetic, 0xf81cf780, ROUNDS, argc, argv);
}
