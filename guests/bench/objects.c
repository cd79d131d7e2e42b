/*
 * Objects of five classes in mixed order, with tables of methods: calls and returns whose targets keep changing.
 */
#include "kernel.h"

#define ROUNDS 2800
#define COUNT 2000

struct shape;

struct class {
    uint32_t (*area)(const struct shape *);
    void (*grow)(struct shape *, uint32_t by);
    uint32_t (*describe)(const struct shape *, uint32_t sum);
};

struct shape {
    const struct class *class;
    uint32_t width, height;
    uint32_t color;
};

static struct shape shapes[COUNT];

static uint32_t square_area(const struct shape *s)
{
    return s->width * s->width;
}

static uint32_t rectangle_area(const struct shape *s)
{
    return s->width * s->height;
}

static uint32_t triangle_area(const struct shape *s)
{
    return s->width * s->height / 2;
}

/* Pi is 201 / 64. */
static uint32_t circle_area(const struct shape *s)
{
    return s->width * s->width * 201 / 64;
}

static uint32_t ring_area(const struct shape *s)
{
    return (s->width * s->width - s->height * s->height) * 201 / 64;
}

static void grow_width(struct shape *s, uint32_t by)
{
    s->width = (s->width + by) & 0xff;
}

static void grow_both(struct shape *s, uint32_t by)
{
    s->width = (s->width + by) & 0xff;
    s->height = (s->height + by) & 0xff;
}

/* The inner circle grows up to the outer one. */
static void grow_inside(struct shape *s, uint32_t by)
{
    s->height += by;
    if (s->height > s->width)
        s->height = 0;
}

static uint32_t describe_round(const struct shape *s, uint32_t sum)
{
    return mix(sum, s->color ^ s->width);
}

/* Asks the shape itself. */
static uint32_t describe_angular(const struct shape *s, uint32_t sum)
{
    return mix(sum, s->color + s->class->area(s));
}

static const struct class square = {square_area, grow_width, describe_angular};
static const struct class rectangle = {rectangle_area, grow_both, describe_angular};
static const struct class triangle = {triangle_area, grow_both, describe_angular};
static const struct class circle = {circle_area, grow_width, describe_round};
static const struct class ring = {ring_area, grow_inside, describe_round};
static const struct class *const classes[] = {&square, &rectangle, &triangle, &circle, &ring};

static uint32_t round_of_calls(void)
{
    uint32_t random = one, sum = 0;

    for (int i = 0; i < COUNT; i++) {
        struct shape *s = &shapes[i];
        s->class = classes[next_random(&random) % 5];
        s->width = next_random(&random) % 200;
        s->height = s->width / 2;
        s->color = next_random(&random);
    }
    for (int pass = 0; pass < 20; pass++)
        for (int i = 0; i < COUNT; i++) {
            struct shape *s = &shapes[i];
            s->class->grow(s, pass);
            sum += s->class->area(s);
            sum = s->class->describe(s, sum);
        }
    return sum;
}

int main(int argc, char **argv)
{
    return run_rounds("objects", round_of_calls, 0x77bcd376, ROUNDS, argc, argv);
}
