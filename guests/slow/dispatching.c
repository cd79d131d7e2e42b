/*
 * A program that is slow because of indirect jumps that nobody can guess: an event loop with a handler for each of 64
 * kinds of events, which come in an order that looks random.
 *
 * dispatching [sorted]
 *
 * With "sorted" the events of a batch are handled kind by kind. docs/tutorial.md finds the reason with `dbt trace`.
 */
#include <stdint.h>
#include <stdio.h>

#define KINDS 64
#define BATCH 4096
#define ROUNDS 30000

typedef uint32_t handler(uint32_t sum);

#define HANDLER(n) \
    static __attribute__((noinline)) uint32_t handle_##n(uint32_t sum) { return (sum << 5 | sum >> 27) + 0x##n##1u; }
#define EIGHT(f, n) f(n##0) f(n##1) f(n##2) f(n##3) f(n##4) f(n##5) f(n##6) f(n##7)
#define NAME(n) handle_##n,

EIGHT(HANDLER, 1)
EIGHT(HANDLER, 2)
EIGHT(HANDLER, 3)
EIGHT(HANDLER, 4)
EIGHT(HANDLER, 5)
EIGHT(HANDLER, 6)
EIGHT(HANDLER, 7)
EIGHT(HANDLER, 8)

static handler *const handlers[KINDS] = {
    EIGHT(NAME, 1) EIGHT(NAME, 2) EIGHT(NAME, 3) EIGHT(NAME, 4) EIGHT(NAME, 5) EIGHT(NAME, 6) EIGHT(NAME, 7) EIGHT(NAME, 8)
};

static __attribute__((noinline, noclone)) uint32_t run_events(const uint8_t *events, int count, uint32_t sum)
{
    while (count--)
        sum = handlers[*events++](sum);
    return sum;
}

static void sort(const uint8_t *events, uint8_t *sorted)
{
    int place = 0;

    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < BATCH; i++)
            if (events[i] == kind)
                sorted[place++] = kind;
}

int main(int argc, char **argv)
{
    static uint8_t events[BATCH], sorted[BATCH];
    uint32_t state = 1, sum = 0;

    (void)argv;
    for (int i = 0; i < BATCH; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        events[i] = state >> 8 & (KINDS - 1);
    }
    sort(events, sorted);
    for (int round = 0; round < ROUNDS; round++)
        sum = run_events(argc > 1 ? sorted : events, BATCH, sum);
    iprintf("%08lx\n", (unsigned long)sum);
    return 0;
}
