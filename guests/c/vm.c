/*
 * A bytecode interpreter: a switch in a loop, so an indirect jump that is hard to predict.
 *
 * vm [rounds]    runs three bytecode programs that many times and checks them against the same in C
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* a, b and c are the operands of an instruction; "go to" takes an index into the code. */
enum op {
    SET,   /* r[a] = c */
    MOVE,  /* r[a] = r[b] */
    ADD,   /* r[a] = r[b] + r[c] */
    ADDI,  /* r[a] = r[b] + c */
    MUL,   /* r[a] = r[b] * r[c] */
    ANDI,  /* r[a] = r[b] & c */
    SHRI,  /* r[a] = r[b] >> c */
    LOAD,  /* r[a] = memory[r[b]] */
    STORE, /* memory[r[b]] = r[a] */
    LESS,  /* if r[a] < r[b] go to c */
    ZERO,  /* if r[a] == 0 go to c */
    JUMP,  /* go to c */
    CALL,  /* push the return address, go to c */
    RET,
    PUSH, /* push r[a] */
    POP,  /* r[a] = pop */
    HALT, /* the result is r[0] */
};

struct insn {
    uint8_t op, a, b;
    int8_t c;
};

#define REGISTERS 8
#define STACK 256
#define MEMORY 4096

static uint32_t memory[MEMORY];
static unsigned long executed;

static uint32_t run(const struct insn *code, uint32_t argument)
{
    uint32_t r[REGISTERS] = {argument}, stack[STACK], *sp = stack;
    const struct insn *pc = code;

    for (;;) {
        const struct insn *i = pc++;
        executed++;
        switch ((enum op)i->op) {
        case SET:
            r[i->a] = i->c;
            break;
        case MOVE:
            r[i->a] = r[i->b];
            break;
        case ADD:
            r[i->a] = r[i->b] + r[i->c];
            break;
        case ADDI:
            r[i->a] = r[i->b] + i->c;
            break;
        case MUL:
            r[i->a] = r[i->b] * r[i->c];
            break;
        case ANDI:
            r[i->a] = r[i->b] & i->c;
            break;
        case SHRI:
            r[i->a] = r[i->b] >> i->c;
            break;
        case LOAD:
            r[i->a] = memory[r[i->b] % MEMORY];
            break;
        case STORE:
            memory[r[i->b] % MEMORY] = r[i->a];
            break;
        case LESS:
            if (r[i->a] < r[i->b])
                pc = code + i->c;
            break;
        case ZERO:
            if (r[i->a] == 0)
                pc = code + i->c;
            break;
        case JUMP:
            pc = code + i->c;
            break;
        case CALL:
            *sp++ = pc - code;
            pc = code + i->c;
            break;
        case RET:
            pc = code + *--sp;
            break;
        case PUSH:
            *sp++ = r[i->a];
            break;
        case POP:
            r[i->a] = *--sp;
            break;
        case HALT:
            return r[0];
        }
    }
}

/* Fibonacci of r0 by naive recursion; r1 is 2. */
static const struct insn fibonacci[] = {
    /*  0 */ {SET, 1, 0, 2},
    /*  1 */ {CALL, 0, 0, 3},
    /*  2 */ {HALT, 0, 0, 0},
    /*  3 */ {LESS, 0, 1, 13},
    /*  4 */ {PUSH, 0, 0, 0},
    /*  5 */ {ADDI, 0, 0, -1},
    /*  6 */ {CALL, 0, 0, 3},
    /*  7 */ {POP, 2, 0, 0},
    /*  8 */ {PUSH, 0, 0, 0},
    /*  9 */ {ADDI, 0, 2, -2},
    /* 10 */ {CALL, 0, 0, 3},
    /* 11 */ {POP, 2, 0, 0},
    /* 12 */ {ADD, 0, 0, 2},
    /* 13 */ {RET, 0, 0, 0},
};

static uint32_t fibonacci_in_c(uint32_t n)
{
    return n < 2 ? n : fibonacci_in_c(n - 1) + fibonacci_in_c(n - 2);
}

/* The total length of the Collatz sequences of r0 and all below: r1 the number, r2 its sequence, r3 the total. */
static const struct insn collatz[] = {
    /*  0 */ {SET, 4, 0, 2},
    /*  1 */ {SET, 6, 0, 3},
    /*  2 */ {MOVE, 1, 0, 0},
    /*  3 */ {ZERO, 1, 0, 16},
    /*  4 */ {MOVE, 2, 1, 0},
    /*  5 */ {ADDI, 3, 3, 1},
    /*  6 */ {LESS, 2, 4, 14},
    /*  7 */ {ANDI, 5, 2, 1},
    /*  8 */ {ZERO, 5, 0, 12},
    /*  9 */ {MUL, 2, 2, 6},
    /* 10 */ {ADDI, 2, 2, 1},
    /* 11 */ {JUMP, 0, 0, 5},
    /* 12 */ {SHRI, 2, 2, 1},
    /* 13 */ {JUMP, 0, 0, 5},
    /* 14 */ {ADDI, 1, 1, -1},
    /* 15 */ {JUMP, 0, 0, 3},
    /* 16 */ {MOVE, 0, 3, 0},
    /* 17 */ {HALT, 0, 0, 0},
};

static uint32_t collatz_in_c(uint32_t n)
{
    uint32_t total = 0;

    for (; n > 0; n--)
        for (uint32_t k = n;; k = k & 1 ? 3 * k + 1 : k >> 1) {
            total++;
            if (k < 2)
                break;
        }
    return total;
}

/* The number of primes below r0, by a sieve in memory: r1 a number, r2 its multiples, r3 the count; r4 is 1. */
static const struct insn primes[] = {
    /*  0 */ {SET, 1, 0, 2},
    /*  1 */ {SET, 4, 0, 1},
    /*  2 */ {LESS, 1, 0, 4},
    /*  3 */ {JUMP, 0, 0, 15},
    /*  4 */ {LOAD, 5, 1, 0},
    /*  5 */ {ZERO, 5, 0, 8},
    /*  6 */ {ADDI, 1, 1, 1},
    /*  7 */ {JUMP, 0, 0, 2},
    /*  8 */ {ADDI, 3, 3, 1},
    /*  9 */ {ADD, 2, 1, 1},
    /* 10 */ {LESS, 2, 0, 12},
    /* 11 */ {JUMP, 0, 0, 6},
    /* 12 */ {STORE, 4, 2, 0},
    /* 13 */ {ADD, 2, 2, 1},
    /* 14 */ {JUMP, 0, 0, 10},
    /* 15 */ {MOVE, 0, 3, 0},
    /* 16 */ {HALT, 0, 0, 0},
};

static uint32_t primes_in_c(uint32_t n)
{
    uint32_t count = 0;

    for (uint32_t i = 2; i < n; i++) {
        uint32_t divisor = 2;
        while (divisor * divisor <= i && i % divisor != 0)
            divisor++;
        count += divisor * divisor > i;
    }
    return count;
}

static const struct {
    const char *name;
    const struct insn *code;
    uint32_t (*in_c)(uint32_t);
    uint32_t argument;
} programs[] = {
    {"fibonacci", fibonacci, fibonacci_in_c, 9},
    {"collatz", collatz, collatz_in_c, 12},
    {"primes", primes, primes_in_c, 150},
};

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;

    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        uint32_t expected = programs[i].in_c(programs[i].argument);
        for (int round = 0; round < rounds; round++) {
            memset(memory, 0, sizeof memory);
            if (run(programs[i].code, programs[i].argument) != expected) {
                printf("%s: wrong\n", programs[i].name);
                return 1;
            }
        }
        printf("%s(%lu) = %lu\n", programs[i].name, (unsigned long)programs[i].argument, (unsigned long)expected);
    }
    printf("%lu bytecodes\nvm: ok\n", executed);
    return 0;
}
