/*
 * Double-precision arithmetic of IEEE 754 in integers: shifts by any amount, counts of leading zeros, long products.
 *
 * Addition, multiplication and division, rounded to the nearest, ties to even, with subnormal numbers, infinities and
 * NaN. A finite number other than 0 is taken apart into a fraction and an exponent, so that its value is
 * fraction * 2^exponent with the fraction's bit 62 set; packing rounds off the low ten bits.
 */
#include "kernel.h"

#define ROUNDS 2800

typedef uint64_t f64; /* the bits of a double */

#define SIGN 0x8000000000000000ull
#define INFINITE 0x7ff0000000000000ull
#define NOT_A_NUMBER 0x7ff8000000000000ull
#define HIDDEN 0x0010000000000000ull
#define BIAS (1023 + 62)

struct parts {
    uint64_t fraction;
    int exponent;
};

static struct parts normalize(uint64_t fraction, int exponent)
{
    int shift = __builtin_clzll(fraction) - 1;

    return (struct parts){fraction << shift, exponent - shift};
}

static struct parts unpack(f64 x)
{
    int exponent = x >> 52 & 0x7ff;
    uint64_t fraction = x & (HIDDEN - 1);

    if (exponent == 0)
        return normalize(fraction, 1 - 1023 - 52);
    return (struct parts){(fraction | HIDDEN) << 10, exponent - BIAS};
}

/* Shifts right; a bit that is lost leaves its trace in the lowest. */
static uint64_t shift_sticky(uint64_t x, int by)
{
    if (by == 0)
        return x;
    if (by > 63)
        return x != 0;
    return x >> by | ((x << (64 - by)) != 0);
}

/* Bit 62 of the fraction is set. */
static f64 pack(f64 sign, uint64_t fraction, int exponent)
{
    exponent += BIAS;
    if (exponent >= 0x7ff)
        return sign | INFINITE;
    if (exponent < 1) { /* subnormal; the hidden bit counts as an exponent of 1 */
        fraction = shift_sticky(fraction, 1 - exponent);
        exponent = 1;
    }
    uint64_t rest = fraction & 0x3ff;
    fraction >>= 10;
    fraction += rest > 0x200 || (rest == 0x200 && (fraction & 1));
    return sign | (((uint64_t)(exponent - 1) << 52) + fraction);
}

static int is_nan(f64 x)
{
    return (x & ~SIGN) > INFINITE;
}

static f64 f64_add(f64 x, f64 y)
{
    /* The one of greater magnitude first. */
    if ((x & ~SIGN) < (y & ~SIGN)) {
        f64 t = x;
        x = y;
        y = t;
    }
    f64 sign = x & SIGN;
    int differ = ((x ^ y) & SIGN) != 0;

    if (is_nan(x) || ((y & ~SIGN) == INFINITE && differ))
        return NOT_A_NUMBER;
    if ((x & ~SIGN) == INFINITE)
        return x;
    if ((y & ~SIGN) == 0)
        return (x & ~SIGN) != 0 ? x : x & y;

    struct parts a = unpack(x), b = unpack(y);
    b.fraction = shift_sticky(b.fraction, a.exponent - b.exponent);
    if (differ) {
        if (a.fraction == b.fraction)
            return 0;
        a = normalize(a.fraction - b.fraction, a.exponent);
    } else {
        a.fraction += b.fraction;
        if (a.fraction & SIGN) {
            a.fraction = shift_sticky(a.fraction, 1);
            a.exponent++;
        }
    }
    return pack(sign, a.fraction, a.exponent);
}

static f64 f64_multiply(f64 x, f64 y)
{
    f64 sign = (x ^ y) & SIGN;

    x &= ~SIGN;
    y &= ~SIGN;
    if (is_nan(x) || is_nan(y) || (x == INFINITE && y == 0) || (x == 0 && y == INFINITE))
        return NOT_A_NUMBER;
    if (x == INFINITE || y == INFINITE)
        return sign | INFINITE;
    if (x == 0 || y == 0)
        return sign;

    struct parts a = unpack(x), b = unpack(y);
    /* 63 by 63 bits: the upper 64 of the 126, and whether the others are 0. */
    uint64_t a_low = (uint32_t)a.fraction, a_high = a.fraction >> 32;
    uint64_t b_low = (uint32_t)b.fraction, b_high = b.fraction >> 32;
    uint64_t low = a_low * b_low;
    uint64_t middle = a_high * b_low + (low >> 32);
    uint64_t other = a_low * b_high + (uint32_t)middle;
    uint64_t high = a_high * b_high + (middle >> 32) + (other >> 32);
    high |= ((uint32_t)other | (uint32_t)low) != 0;
    /* Bit 60 or 61 of it is the highest one. */
    a = normalize(high, a.exponent + b.exponent + 64);
    return pack(sign, a.fraction, a.exponent);
}

static f64 f64_divide(f64 x, f64 y)
{
    f64 sign = (x ^ y) & SIGN;

    x &= ~SIGN;
    y &= ~SIGN;
    if (is_nan(x) || is_nan(y) || (x == INFINITE && y == INFINITE) || (x == 0 && y == 0))
        return NOT_A_NUMBER;
    if (x == INFINITE || y == 0)
        return sign | INFINITE;
    if (x == 0 || y == INFINITE)
        return sign;

    struct parts a = unpack(x), b = unpack(y);
    if (a.fraction < b.fraction) {
        a.fraction <<= 1;
        a.exponent--;
    }
    /* The quotient is in [1, 2): 56 bits of it, one at a time, then the sticky bit. */
    uint64_t quotient = 0, rest = a.fraction;
    for (int i = 0; i < 56; i++) {
        quotient <<= 1;
        if (rest >= b.fraction) {
            rest -= b.fraction;
            quotient |= 1;
        }
        rest <<= 1;
    }
    quotient = quotient << 7 | (rest != 0);
    return pack(sign, quotient, a.exponent - b.exponent - 62);
}

#define ONE 0x3ff0000000000000ull
#define HALF 0x3fe0000000000000ull

/* By Newton's method. */
static f64 square_root(f64 x)
{
    f64 root = x;

    for (int i = 0; i < 12; i++)
        root = f64_multiply(HALF, f64_add(root, f64_divide(x, root)));
    return root;
}

/* By its series. */
static f64 exponential(f64 x)
{
    f64 sum = ONE, term = ONE, count = 0;

    for (int i = 0; i < 20; i++) {
        count = f64_add(count, ONE);
        term = f64_divide(f64_multiply(term, x), count);
        sum = f64_add(sum, term);
    }
    return sum;
}

static uint32_t round_of_floats(void)
{
    f64 sum = 0, x = ONE * one;

    for (int i = 0; i < 100; i++) {
        x = f64_add(x, HALF);
        sum = f64_add(sum, square_root(x));
        sum = f64_add(sum, exponential(f64_divide(ONE, x) | SIGN));
    }
    /* Down to 0 by way of the subnormal numbers, and up to infinity. */
    f64 small = HALF, large = sum;
    uint32_t steps = 0;
    while (small != 0) {
        small = f64_multiply(small, 0x3f91111111111111ull); /* 1 / 60 */
        steps++;
    }
    while (large != INFINITE) {
        large = f64_divide(large, 0x3f91111111111111ull);
        steps++;
    }
    return mix(sum >> 32 ^ (uint32_t)sum, steps);
}

int main(int argc, char **argv)
{
    return run_rounds("softfloat", round_of_floats, 0x9ea9a377, ROUNDS, argc, argv);
}
