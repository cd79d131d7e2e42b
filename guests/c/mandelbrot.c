/*
 * The Mandelbrot set in fixed point (Q7.25): long multiplies (SMULL), 64-bit shifts, a hot inner loop.
 *
 * mandelbrot [iterations]    the depth at which a point counts as inside
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define WIDTH 40
#define HEIGHT 15
#define FRACTION 25
#define FIXED(x) ((int32_t)((x) * (1 << FRACTION)))

static int32_t multiply(int32_t a, int32_t b)
{
    return (int64_t)a * b >> FRACTION;
}

/* The number of steps until z = z*z + c has left the circle of radius 2 (it is below 7 then), at most `limit`. */
static int escape_time(int32_t cx, int32_t cy, int limit)
{
    int32_t x = 0, y = 0;

    for (int step = 0; step < limit; step++) {
        int32_t xx = multiply(x, x), yy = multiply(y, y);
        if (xx + yy > FIXED(4.0))
            return step;
        y = 2 * multiply(x, y) + cy;
        x = xx - yy + cx;
    }
    return limit;
}

int main(int argc, char **argv)
{
    static const char shades[] = " .:-=+*%@";
    int limit = argc > 1 ? atoi(argv[1]) : 32;
    uint32_t inside = 0, checksum = 0;

    for (int row = 0; row < HEIGHT; row++) {
        char line[WIDTH + 1];
        for (int column = 0; column < WIDTH; column++) {
            int32_t cx = FIXED(-2.0) + column * (FIXED(2.6) / (WIDTH - 1));
            int32_t cy = FIXED(-1.1) + row * (FIXED(2.2) / (HEIGHT - 1));
            int steps = escape_time(cx, cy, limit);
            inside += steps == limit;
            checksum = checksum * 31 + steps;
            line[column] = steps == limit ? '#' : shades[steps < 9 ? steps : 8];
        }
        line[WIDTH] = '\0';
        puts(line);
    }
    printf("%lu points inside, checksum %08lx\n", (unsigned long)inside, (unsigned long)checksum);

    /* 0 is a fixed point, -1 has period 2, 1/4 + i is outside. */
    if (escape_time(0, 0, limit) != limit || escape_time(FIXED(-1.0), 0, limit) != limit ||
        escape_time(FIXED(0.25), FIXED(1.0), limit) == limit) {
        puts("mandelbrot: wrong");
        return 1;
    }
    puts("mandelbrot: ok");
    return 0;
}
