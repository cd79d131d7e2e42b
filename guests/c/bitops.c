/*
 * Bit tricks that ARM has instructions for, each in plain C beside a slow loop: leading and trailing zeros,
 * population count, reversal, byte order, rotation, bit fields, sign extension, saturation, halfword products.
 *
 * bitops [rounds]    rounds of random operands
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t random_state = 2463534242u;

static uint32_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static uint32_t reverse_bits(uint32_t x)
{
    x = (x & 0x55555555) << 1 | (x >> 1 & 0x55555555);
    x = (x & 0x33333333) << 2 | (x >> 2 & 0x33333333);
    x = (x & 0x0f0f0f0f) << 4 | (x >> 4 & 0x0f0f0f0f);
    return __builtin_bswap32(x);
}

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (-n & 31);
}

static int32_t saturate(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

static int32_t saturate_to_byte(int32_t x)
{
    return x > 127 ? 127 : x < -128 ? -128 : x;
}

static uint32_t saturate_to_pixel(int32_t x)
{
    return x > 255 ? 255 : x < 0 ? 0 : x;
}

static uint32_t slow_reverse(uint32_t x)
{
    uint32_t result = 0;

    for (int i = 0; i < 32; i++)
        result |= (x >> i & 1) << (31 - i);
    return result;
}

static int check_counts(uint32_t x)
{
    int ones = 0, leading = 0, trailing = 0;

    for (int i = 0; i < 32; i++)
        ones += x >> i & 1;
    while (leading < 32 && !(x << leading & 0x80000000))
        leading++;
    while (trailing < 32 && !(x >> trailing & 1))
        trailing++;
    return __builtin_popcount(x) == ones && __builtin_parity(x) == (ones & 1) &&
           __builtin_ffs(x) == (trailing + 1) % 33 &&
           (x == 0 || (__builtin_clz(x) == leading && __builtin_ctz(x) == trailing));
}

static int check_order(uint32_t x, int n)
{
    uint32_t rotated = x;

    for (int i = 0; i < n; i++)
        rotated = rotated >> 1 | rotated << 31;
    uint16_t swapped = __builtin_bswap16(x);
    return rotate(x, n) == rotated && reverse_bits(x) == slow_reverse(x) && (swapped & 255) == (x >> 8 & 255) &&
           (int16_t)__builtin_bswap16(x) == (int16_t)((x & 255) << 8 | (x >> 8 & 255)) &&
           __builtin_bswap32(x) == ((x & 255) << 24 | (x >> 8 & 255) << 16 | (x >> 16 & 255) << 8 | x >> 24);
}

/* A field of fixed place (UBFX, SBFX, BFI, BFC for the compiler to pick), and one laid out by the compiler. */
static int check_fields(uint32_t x, uint32_t y)
{
    union {
        struct {
            unsigned a : 5, b : 11;
            signed c : 9, d : 7;
        } field;
        uint32_t word;
    } u = {.word = x};
    uint32_t unsigned_field = x >> 5 & 0x7ff;
    int32_t signed_field = (int32_t)(x << 7) >> 23;
    int good = u.field.b == unsigned_field && u.field.c == signed_field && u.field.d == (int32_t)x >> 25;

    u.field.b = y;
    u.field.d = 0;
    return good && u.word == ((x & 0x01ff001f) | (y & 0x7ff) << 5);
}

static int check_extension(uint32_t x, uint32_t y)
{
    uint32_t packed = (x & 0xffff) | y << 16;

    return (int8_t)x == (int32_t)((x & 255) ^ 128) - 128 && (int16_t)x == (int32_t)((x & 0xffff) ^ 0x8000) - 0x8000 &&
           (uint8_t)x + y == (x & 255) + y && (int16_t)(x >> 16) == (int32_t)x >> 16 &&
           (packed >> 16) == (y & 0xffff) &&
           ((x & 0x00ff00ff) + (x >> 8 & 0x00ff00ff)) % 65536 == (x & 255) + (x >> 8 & 255);
}

static int check_arithmetic(uint32_t x, uint32_t y)
{
    int32_t a = x, b = y, sum, difference;
    int32_t limit = a < 0 ? INT32_MIN : INT32_MAX; /* where a sum or a difference overflows to */
    int32_t expected_sum = __builtin_add_overflow(a, b, &sum) ? limit : sum;
    int32_t expected_difference = __builtin_sub_overflow(a, b, &difference) ? limit : difference;
    int32_t halves = (int16_t)x * (int16_t)y + (int16_t)(x >> 16) * (int16_t)(y >> 16);
    int64_t product = (int64_t)a * b;

    return saturate((int64_t)a + b) == expected_sum && saturate((int64_t)a - b) == expected_difference &&
           saturate_to_byte(a >> 20) == (a >> 20 < -128 ? -128 : a >> 20 > 127 ? 127 : (int8_t)(a >> 20)) &&
           saturate_to_pixel(a >> 20) == (uint32_t)(a < 0 ? 0 : a >> 20 & 0x700 ? 255 : a >> 20 & 255) &&
           (int64_t)halves == (int64_t)(int16_t)x * (int16_t)y + ((int64_t)(a >> 16) * (b >> 16)) &&
           (uint32_t)(product >> 32) == (uint32_t)((uint64_t)x * y >> 32) - (a < 0 ? y : 0) - (b < 0 ? x : 0) &&
           labs((long)(a / 2)) == (a / 2 < 0 ? -(a / 2) : a / 2);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 60;
    static const uint32_t edges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fff8000, 0x00ff00ff};
    uint32_t checksum = 0;

    for (int round = 0; round < rounds; round++) {
        uint32_t x = round < 49 ? edges[round % 7] : random_word(), y = round < 49 ? edges[round / 7] : random_word();
        if (x == 0x80008000 && y == 0x80008000) /* the sum of halfword products overflows, undefined in C */
            continue;
        if (!check_counts(x) || !check_order(x, round % 32) || !check_fields(x, y) || !check_extension(x, y) ||
            !check_arithmetic(x, y)) {
            printf("wrong for %08lx, %08lx\n", (unsigned long)x, (unsigned long)y);
            return 1;
        }
        int32_t sum = saturate((int64_t)(int32_t)x + (int32_t)y);
        checksum = rotate(checksum, 7) ^ (reverse_bits(x) + __builtin_popcount(y) + sum);
    }
    printf("%d rounds, checksum %08lx\nbitops: ok\n", rounds, (unsigned long)checksum);
    return 0;
}
