/*
 * Deep and wide recursion: Fibonacci, Ackermann, the towers of Hanoi, mutual recursion.
 *
 * recursion [n]    Fibonacci of n (and the others at sizes that follow from it)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint32_t fibonacci_by_loop(unsigned n)
{
    uint32_t a = 0, b = 1;

    while (n-- > 0) {
        uint32_t next = a + b;
        a = b;
        b = next;
    }
    return a;
}

static unsigned ackermann(unsigned m, unsigned n)
{
    if (m == 0)
        return n + 1;
    if (n == 0)
        return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

/* Three pegs as stacks of discs; a larger disc on a smaller one is an error. */
struct hanoi {
    int height[3];
    uint8_t disc[3][32];
    long moves;
    int illegal;
};

static void move_tower(struct hanoi *h, int discs, int from, int to)
{
    if (discs == 0)
        return;

    int spare = 3 - from - to;
    move_tower(h, discs - 1, from, spare);
    uint8_t disc = h->disc[from][--h->height[from]];
    if (h->height[to] > 0 && h->disc[to][h->height[to] - 1] < disc)
        h->illegal = 1;
    h->disc[to][h->height[to]++] = disc;
    h->moves++;
    move_tower(h, discs - 1, spare, to);
}

static int is_odd(unsigned n);

static int is_even(unsigned n)
{
    return n == 0 ? 1 : is_odd(n - 1);
}

static int is_odd(unsigned n)
{
    return n == 0 ? 0 : is_even(n - 1);
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? atoi(argv[1]) : 14;
    int discs = n < 10 ? n : n - 6;
    unsigned side = n < 20 ? n - 8 : 8;
    int good = 1;

    uint32_t f = fibonacci(n);
    printf("fibonacci(%u) = %lu\n", n, (unsigned long)f);
    good &= f == fibonacci_by_loop(n);

    unsigned a = ackermann(2, side);
    printf("ackermann(2, %u) = %u\n", side, a);
    good &= a == 2 * side + 3;

    struct hanoi h = {.height = {discs, 0, 0}};
    for (int i = 0; i < discs; i++)
        h.disc[0][i] = discs - i;
    move_tower(&h, discs, 0, 2);
    printf("hanoi(%d) takes %ld moves\n", discs, h.moves);
    good &= h.moves == (1L << discs) - 1 && !h.illegal && h.height[2] == discs;

    printf("%u is %s\n", 10 * n + 1, is_even(10 * n + 1) ? "even" : "odd");
    good &= is_odd(10 * n + 1);

    puts(good ? "recursion: ok" : "recursion: wrong");
    return good ? 0 : 1;
}
