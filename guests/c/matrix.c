/*
 * Matrices: nested loops, multiply-accumulate on words, halfwords and 64 bits, two-dimensional addressing.
 *
 * matrix [size]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PRIME 65521 /* products of two residues fit in 32 bits */

static uint32_t power(uint32_t base, uint32_t exponent)
{
    uint32_t result = 1;

    for (; exponent > 0; exponent >>= 1, base = base * base % PRIME)
        if (exponent & 1)
            result = result * base % PRIME;
    return result;
}

static void multiply(int n, const uint32_t *a, const uint32_t *b, uint32_t *product)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            uint64_t sum = 0;
            for (int k = 0; k < n; k++)
                sum += (uint64_t)a[i * n + k] * b[k * n + j];
            product[i * n + j] = sum % PRIME;
        }
    }
}

/* Gauss-Jordan elimination modulo PRIME; destroys `a`. False when it is singular. */
static int invert(int n, uint32_t *a, uint32_t *inverse)
{
    for (int i = 0; i < n * n; i++)
        inverse[i] = i % (n + 1) == 0;
    for (int column = 0; column < n; column++) {
        int pivot = column;
        while (pivot < n && a[pivot * n + column] == 0)
            pivot++;
        if (pivot == n)
            return 0;
        uint32_t scale = power(a[pivot * n + column], PRIME - 2); /* Fermat: the reciprocal */
        for (int k = 0; k < n; k++) {
            uint32_t from_a = a[pivot * n + k], from_inverse = inverse[pivot * n + k];
            a[pivot * n + k] = a[column * n + k];
            inverse[pivot * n + k] = inverse[column * n + k];
            a[column * n + k] = from_a * scale % PRIME;
            inverse[column * n + k] = from_inverse * scale % PRIME;
        }
        for (int row = 0; row < n; row++) {
            if (row == column || a[row * n + column] == 0)
                continue;
            uint32_t factor = PRIME - a[row * n + column];
            for (int k = 0; k < n; k++) {
                a[row * n + k] = (a[row * n + k] + factor * a[column * n + k] % PRIME) % PRIME;
                inverse[row * n + k] = (inverse[row * n + k] + factor * inverse[column * n + k] % PRIME) % PRIME;
            }
        }
    }
    return 1;
}

/* The trace of transpose(a) * a in halfwords, which ARMv5TE can do with SMULBB and the like. */
static int32_t sum_of_squares(int n, const int16_t *a)
{
    int32_t sum = 0;

    for (int i = 0; i < n * n; i++)
        sum += a[i] * a[i] - a[i] * a[n * n - 1 - i];
    return sum;
}

static int32_t sum_of_differences(int n, const int16_t *a)
{
    int32_t sum = 0;

    for (int i = 0, j = n * n - 1; i < j; i++, j--)
        sum += (a[i] - a[j]) * (a[i] - a[j]);
    return sum;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 9;
    uint32_t *a = malloc(4 * n * n * sizeof *a), *copy = a + n * n, *inverse = copy + n * n, *product = inverse + n * n;
    int16_t *halfwords = malloc(n * n * sizeof *halfwords);
    uint32_t random = 1, checksum = 0;

    if (a == NULL || halfwords == NULL) {
        puts("out of memory");
        return 1;
    }
    for (int i = 0; i < n * n; i++) {
        random = random * 1664525 + 1013904223;
        a[i] = copy[i] = (random >> 16) % PRIME;
        halfwords[i] = (int16_t)(random >> 16) / 512;
    }
    int good = invert(n, copy, inverse);
    multiply(n, a, inverse, product);
    for (int i = 0; i < n * n; i++) {
        good &= product[i] == (i % (n + 1) == 0);
        checksum = checksum * 31 + inverse[i];
    }
    printf("inverse of %d x %d: checksum %08lx\n", n, n, (unsigned long)checksum);

    int32_t squares = sum_of_squares(n, halfwords);
    printf("sum of squares %ld\n", (long)squares);
    good &= squares == sum_of_differences(n, halfwords);
    free(a);
    free(halfwords);
    puts(good ? "matrix: ok" : "matrix: wrong");
    return good ? 0 : 1;
}
