/*
 * setjmp() and longjmp(): leaving many frames at once, returning twice, exceptions built from them.
 *
 * setjmp [rounds]    rounds of throwing from deep inside
 */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The handlers in force, innermost first. */
struct handler {
    jmp_buf context;
    struct handler *outer;
};

static struct handler *innermost;

static _Noreturn void throw(int code)
{
    struct handler *handler = innermost;

    innermost = handler->outer;
    longjmp(handler->context, code);
}

/* Throws `code` from `depth` frames further down; comes back when it is 0. */
static int dive(int depth, int code)
{
    volatile int on_the_stack[4] = {depth};

    if (depth > 0)
        return dive(depth - 1, code) + on_the_stack[0];
    if (code != 0)
        throw(code);
    return 0;
}

/* Catches what the inner dive throws; an odd code is passed on to the outer handler. */
static int nested(int depth, int code)
{
    struct handler handler = {.outer = innermost};
    int caught = setjmp(handler.context);

    if (caught == 0) {
        innermost = &handler;
        dive(depth, code);
    }
    if (caught & 1)
        throw(caught + 1000);
    return caught;
}

static int protected_call(int depth, int code)
{
    struct handler handler = {.outer = innermost};
    int caught = setjmp(handler.context);

    if (caught != 0)
        return caught;
    innermost = &handler;
    int result = nested(depth, code);
    innermost = handler.outer;
    return result;
}

/* Registers that a callee must preserve come back as they were at setjmp(). */
static int counts_down(int from)
{
    jmp_buf again;
    volatile int left = from;
    int constant = from * 3 + 1, total = 0;

    setjmp(again);
    total = constant;
    if (--left > 0)
        longjmp(again, left);
    return total == from * 3 + 1 && left == 0;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 200;
    uint32_t sum = 0;

    for (int round = 0; round < rounds; round++) {
        int code = round % 100 + 1;
        int caught = protected_call(round % 17, code);
        if (caught != (code & 1 ? code + 1000 : code) || innermost != NULL) {
            printf("threw %d, caught %d\n", code, caught);
            return 1;
        }
        sum += caught;
    }
    printf("%d throws, sum %lu\n", rounds, (unsigned long)sum);

    jmp_buf buffer;
    volatile int zero = 0;
    int value = setjmp(buffer);
    if (value == 0)
        longjmp(buffer, zero); /* a zero becomes 1 */
    if (value != 1 || !counts_down(10) || dive(10, 0) != 55) {
        puts("setjmp: wrong");
        return 1;
    }
    puts("setjmp: ok");
    return 0;
}
