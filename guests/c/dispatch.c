/*
 * Indirect control flow: a dense and a sparse switch, tables of functions, virtual calls, labels as values.
 *
 * dispatch [steps]    steps of each kind
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define OPERATIONS 8

/* Eight operations on an accumulator, dispatched in five ways that must agree. */
static uint32_t by_switch(uint32_t x, unsigned operation)
{
    switch (operation) {
    case 0: return x + 0x9e3779b9;
    case 1: return x ^ x >> 15;
    case 2: return x * 5;
    case 3: return x << 9 | x >> 23;
    case 4: return ~x;
    case 5: return x - (x >> 3);
    case 6: return x ^ 0x5bd1e995;
    case 7: return x & 1 ? x >> 1 ^ 0xedb88320 : x >> 1;
    default: return 0;
    }
}

/* The same with case labels far apart, which becomes a tree of comparisons. */
static uint32_t by_sparse_switch(uint32_t x, unsigned operation)
{
    static const uint32_t labels[OPERATIONS] = {3, 1000, 65537, 1000000, 0x1000000, 0x7fffffff, 0x80000001, 0xfffffff0};

    switch (labels[operation]) {
    case 3: return x + 0x9e3779b9;
    case 1000: return x ^ x >> 15;
    case 65537: return x * 5;
    case 1000000: return x << 9 | x >> 23;
    case 0x1000000: return ~x;
    case 0x7fffffff: return x - (x >> 3);
    case 0x80000001: return x ^ 0x5bd1e995;
    case 0xfffffff0: return x & 1 ? x >> 1 ^ 0xedb88320 : x >> 1;
    default: return 0;
    }
}

static uint32_t add(uint32_t x) { return x + 0x9e3779b9; }
static uint32_t mix(uint32_t x) { return x ^ x >> 15; }
static uint32_t scale(uint32_t x) { return x * 5; }
static uint32_t turn(uint32_t x) { return x << 9 | x >> 23; }
static uint32_t invert(uint32_t x) { return ~x; }
static uint32_t shrink(uint32_t x) { return x - (x >> 3); }
static uint32_t flip(uint32_t x) { return x ^ 0x5bd1e995; }
static uint32_t feed_back(uint32_t x) { return x & 1 ? x >> 1 ^ 0xedb88320 : x >> 1; }

static uint32_t (*const functions[OPERATIONS])(uint32_t) = {add, mix, scale, turn, invert, shrink, flip, feed_back};

static uint32_t by_table(uint32_t x, unsigned operation)
{
    return functions[operation](x);
}

/* Objects that find their operation through a table of methods. */
struct shape {
    const struct methods *methods;
    uint32_t state;
};

struct methods {
    void (*set)(struct shape *, uint32_t);
    uint32_t (*get)(const struct shape *);
};

static void set_state(struct shape *s, uint32_t x)
{
    s->state = x;
}

static void set_inverted(struct shape *s, uint32_t x)
{
    s->state = ~x;
}

#define GET(name, operation, stored)                  \
    static uint32_t get_##name(const struct shape *s) \
    {                                                 \
        return operation(stored);                     \
    }
GET(add, add, s->state)
GET(mix, mix, s->state)
GET(scale, scale, ~s->state)
GET(turn, turn, s->state)
GET(invert, invert, ~s->state)
GET(shrink, shrink, s->state)
GET(flip, flip, ~s->state)
GET(feed_back, feed_back, s->state)

static const struct methods classes[OPERATIONS] = {
    {set_state, get_add},       {set_state, get_mix},    {set_inverted, get_scale}, {set_state, get_turn},
    {set_inverted, get_invert}, {set_state, get_shrink}, {set_inverted, get_flip},  {set_state, get_feed_back},
};

static uint32_t by_method(uint32_t x, unsigned operation)
{
    struct shape shape = {&classes[operation], 0};

    shape.methods->set(&shape, x);
    return shape.methods->get(&shape);
}

/* GNU C's computed goto, as in a threaded interpreter. */
static uint32_t by_label(uint32_t x, unsigned operation)
{
    static const void *const labels[OPERATIONS] = {
        &&add, &&mix, &&scale, &&turn, &&invert, &&shrink, &&flip, &&feed_back,
    };

    goto *labels[operation];
add: return x + 0x9e3779b9;
mix: return x ^ x >> 15;
scale: return x * 5;
turn: return x << 9 | x >> 23;
invert: return ~x;
shrink: return x - (x >> 3);
flip: return x ^ 0x5bd1e995;
feed_back: return x & 1 ? x >> 1 ^ 0xedb88320 : x >> 1;
}

static uint32_t run(uint32_t (*dispatch)(uint32_t, unsigned), int steps)
{
    uint32_t x = 1;

    for (int i = 0; i < steps; i++)
        x = dispatch(x, (x ^ i) % OPERATIONS);
    return x;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint32_t (*dispatch)(uint32_t, unsigned);
    } ways[] = {
        {"switch", by_switch}, {"sparse switch", by_sparse_switch}, {"function table", by_table},
        {"methods", by_method}, {"labels", by_label},
    };
    int steps = argc > 1 ? atoi(argv[1]) : 1000;
    uint32_t first = run(by_switch, steps);

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        uint32_t x = run(ways[i].dispatch, steps);
        printf("%-14s %08lx\n", ways[i].name, (unsigned long)x);
        if (x != first) {
            puts("dispatch: wrong");
            return 1;
        }
    }
    puts("dispatch: ok");
    return 0;
}
