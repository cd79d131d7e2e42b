// Compute decimal digits of pi by Gibbons' spigot with LibTomMath: tommath_digits DIGITS
#include "tommath.h"

#include <stdio.h>
#include <stdlib.h>

static mp_int q, r, t, u, v;

// The spigot's state is the matrix (q, r; 0, t). If this is the same for 3 and 4, it is the next digit.
static int digit(unsigned k)
{
    mp_mul_d(&q, k, &u);
    mp_add(&u, &r, &u);
    mp_div(&u, &t, &v, NULL);
    return (int)mp_get_i32(&v);
}

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 100, found = 0;
    if (mp_init_multi(&q, &r, &t, &u, &v, NULL) != MP_OKAY)
        return 1;
    mp_set(&q, 1);
    mp_set(&r, 0);
    mp_set(&t, 1);
    for (unsigned k = 1; found < wanted; k++) {
        // (q, r, t) is multiplied by the matrix (k, 4k + 2; 0, 2k + 1).
        mp_mul_d(&q, 4 * k + 2, &u);
        mp_mul_d(&r, 2 * k + 1, &r);
        mp_add(&r, &u, &r);
        mp_mul_d(&t, 2 * k + 1, &t);
        mp_mul_d(&q, k, &q);
        int next = digit(3);
        while (next == digit(4) && found < wanted) {
            putchar('0' + next);
            if (++found % 50 == 0)
                putchar('\n');
            mp_mul_d(&t, (unsigned)next, &u);
            mp_sub(&r, &u, &r);
            mp_mul_d(&r, 10, &r);
            mp_mul_d(&q, 10, &q);
            next = digit(3);
        }
    }
    putchar('\n');
    return 0;
}
