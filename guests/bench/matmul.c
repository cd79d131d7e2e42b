/*
 * Multiplication of square matrices of integers: a tight loop of two loads and a multiplication, one of the loads
 * going down a column.
 */
#include "kernel.h"

#define ROUNDS 4200
#define MAX_SIZE 96

static int32_t a[MAX_SIZE * MAX_SIZE], b[MAX_SIZE * MAX_SIZE], product[MAX_SIZE * MAX_SIZE];

/* z = x * y, all of n rows and columns. */
static void multiply(const int32_t *x, const int32_t *y, int32_t *z, int n)
{
    for (int row = 0; row < n; row++)
        for (int column = 0; column < n; column++) {
            int32_t sum = 0;
            for (int k = 0; k < n; k++)
                sum += x[row * n + k] * y[k * n + column];
            z[row * n + column] = sum;
        }
}

static uint32_t round_of_products(void)
{
    int n = MAX_SIZE * one;
    uint32_t sum = 0;

    multiply(a, b, product, n);
    for (int i = 0; i < n * n; i++)
        sum = mix(sum, product[i]);
    return sum;
}

int main(int argc, char **argv)
{
    uint32_t random = 1;

    /* Small elements, of both signs: no product overflows. */
    for (int i = 0; i < MAX_SIZE * MAX_SIZE; i++) {
        a[i] = (int32_t)(next_random(&random) % 2001) - 1000;
        b[i] = (int32_t)(next_random(&random) % 2001) - 1000;
    }
    return run_rounds("matmul", round_of_products, 0xe99ad7e2, ROUNDS, argc, argv);
}
