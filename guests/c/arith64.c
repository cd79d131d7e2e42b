/*
 * 64-bit arithmetic on a 32-bit machine: carries, long multiplies, shifts by any amount, libgcc's divisions.
 *
 * arith64 [rounds]    rounds of random operands
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t random_state = 88172645463325252u;

/* Marsaglia's xorshift64, cut to a random number of bits so that small operands come as often as large ones. */
static uint64_t random_operand(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> (random_state & 63);
}

/* Everything below does by 32-bit (or 1-bit) steps what the compiler does by its own means. */

static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t product = 0;

    for (; b != 0; b >>= 1, a += a)
        if (b & 1)
            product += a;
    return product;
}

static uint64_t divide(uint64_t n, uint64_t d, uint64_t *remainder)
{
    uint64_t quotient = 0, rest = 0;

    for (int bit = 63; bit >= 0; bit--) {
        int carry = rest >> 63;
        rest = rest << 1 | (n >> bit & 1);
        if (carry || rest >= d) {
            rest -= d;
            quotient |= 1ull << bit;
        }
    }
    *remainder = rest;
    return quotient;
}

static uint64_t shift_left(uint64_t a, int n)
{
    uint32_t low = a, high = a >> 32;

    for (; n > 0; n--) {
        high = high << 1 | low >> 31;
        low <<= 1;
    }
    return (uint64_t)high << 32 | low;
}

static uint64_t shift_right(uint64_t a, int n, int is_signed)
{
    uint32_t low = a, high = a >> 32;

    for (; n > 0; n--) {
        low = low >> 1 | high << 31;
        high = high >> 1 | (is_signed ? high & 0x80000000u : 0);
    }
    return (uint64_t)high << 32 | low;
}

static int less(uint64_t a, uint64_t b)
{
    uint32_t a_high = a >> 32, b_high = b >> 32;

    return a_high != b_high ? a_high < b_high : (uint32_t)a < (uint32_t)b;
}

static int check_unsigned(uint64_t a, uint64_t b, int n)
{
    uint64_t remainder, quotient = divide(a, b, &remainder);

    return a * b == multiply(a, b) && a / b == quotient && a % b == remainder && a << n == shift_left(a, n) &&
           a >> n == shift_right(a, n, 0) && (a < b) == less(a, b) && a - b + b == a &&
           (a + b < a) == (less(~a, b));
}

static int check_signed(int64_t a, int64_t b, int n)
{
    if (a == INT64_MIN && b == -1) /* overflows: undefined in C */
        return 1;
    int64_t quotient = a / b, remainder = a % b;
    uint64_t high = (uint64_t)((int64_t)(int32_t)(a >> 32) * (int32_t)(b >> 32));

    return (int64_t)((uint64_t)quotient * (uint64_t)b + (uint64_t)remainder) == a &&
           (remainder == 0 || (remainder < 0) == (a < 0)) && (uint64_t)(a >> n) == shift_right(a, n, 1) &&
           (a < b) == less(a ^ 1ull << 63, b ^ 1ull << 63) &&
           high == multiply((uint64_t)(a >> 32), (uint64_t)(b >> 32));
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 40;
    static const uint64_t edges[] = {
        1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, INT64_MAX, 1ull << 63, UINT64_MAX,
    };
    uint64_t checksum = 0;

    for (int round = 0; round < rounds; round++) {
        uint64_t a = random_operand(), b = random_operand() | 1;
        int n = (int)(random_operand() & 63);
        if (round % 4 == 0) {
            a = edges[round / 4 % 9];
            b = edges[round / 36 % 9];
        }
        if (!check_unsigned(a, b, n) || !check_signed(a, b, n) || !check_signed(-a, b, n)) {
            printf("wrong for %llx, %llx, %d\n", (unsigned long long)a, (unsigned long long)b, n);
            return 1;
        }
        checksum = (checksum << 1 | checksum >> 63) ^ (a * b + a / b + a % b + (a << n) + (a >> n));
        if (round < 8)
            printf("%llu / %llu = %llu remainder %llu\n", (unsigned long long)a, (unsigned long long)b,
                   (unsigned long long)(a / b), (unsigned long long)(a % b));
    }
    printf("checksum %016llx\narith64: ok\n", (unsigned long long)checksum);
    return 0;
}
