/*
 * A bytecode interpreter: a switch in a loop, so an indirect jump that is hard to predict.
 *
 * vm [n]    runs three bytecode programs at size n and checks them against the same in C
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Operands are a, b, c of an instruction; r[x] is a register, `to` an index into the code. */
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
static uint64_t executed;

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

/* Fibonacci of r0 by naive recursion: r1 is the constant 2, r2 keeps fib(n - 1) across the second call. */
static const struct insn fibonacci[] = {
    /*  0 */ {SET, 1, 0, 2},
    /*  1 */ {CALL, 0, 0, 3},
    /*  2 */ {HALT, 0, 0, 0},
    /*  3 */ {LESS, 0, 1, 12},
    /*  4 */ {PUSH, 0, 0, 0},
    /*  5 */ {ADDI, 0, 0, -1},
    /*  6 */ {CALL, 0, 0, 3},
    /*  7 */ {POP, 2, 0, 0},
    /*  8 */ {PUSH, 0, 0, 0},
    /*  9 */ {ADDI, 0, 2, -2},
    /* 10 */ {CALL, 0, 0, 3},
    /* 11 */ {JUMP, 0, 0, 13},
    /* 12 */ {RET, 0, 0, 0},
    /* 13 */ {POP, 2, 0, 0},
    /* 14 */ {ADD, 0, 0, 2},
    /* 15 */ {RET, 0, 0, 0},
};

static uint32_t fibonacci_in_c(uint32_t n)
{
    return n < 2 ? n : fibonacci_in_c(n - 1) + fibonacci_in_c(n - 2);
}

/* The sum of the lengths of the Collatz sequences of 1 to r0 (in r1); r2 is the number, r3 the sum, r4 is 2, r6 is 3. */
static const struct insn collatz[] = {
    /*  0 */ {MOVE, 1, 0, 0},
    /*  1 */ {SET, 4, 0, 2},
    /*  2 */ {SET, 6, 0, 3},
    /*  3 */ {ZERO, 1, 0, 15},
    /*  4 */ {MOVE, 2, 1, 0},
    /*  5 */ {ADDI, 3, 3, 1},
    /*  6 */ {LESS, 2, 4, 13},
    /*  7 */ {ANDI, 5, 2, 1},
    /*  8 */ {ZERO, 5, 0, 11},
    /*  9 */ {MUL, 2, 2, 6},
    /* 10 */ {ADDI, 2, 2, 1},
    /* 11 */ {JUMP, 0, 0, 17},
    /* 12 */ {JUMP, 0, 0, 5},
    /* 13 */ {ADDI, 1, 1, -1},
    /* 14 */ {JUMP, 0, 0, 3},
    /* 15 */ {MOVE, 0, 3, 0},
    /* 16 */ {HALT, 0, 0, 0},
    /* 17 */ {ZERO, 5, 0, 19},
    /* 18 */ {JUMP, 0, 0, 12},
    /* 19 */ {SHRI, 2, 2, 1},
    /* 20 */ {JUMP, 0, 0, 12},
};

static uint32_t collatz_in_c(uint32_t n)
{
    uint32_t sum = 0;

    for (uint32_t i = 1; i <= n; i++) {
        sum++;
        for (uint32_t k = i; k > 1; sum++)
            k = k & 1 ? 3 * k + 1 : k >> 1;
    }
    return sum;
}
