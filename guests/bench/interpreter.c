/*
 * An interpreter of bytecode for a machine of sixteen registers: one switch, whose target changes with every
 * instruction. The program looks for the longest Collatz sequence and counts primes by trial division.
 */
#include "kernel.h"

#define ROUNDS 6300

enum opcode {
    SET,       /* r[a] = b */
    MOVE,      /* r[a] = r[b] */
    ADD,       /* r[a] = r[b] + r[c] */
    SUB,       /* r[a] = r[b] - r[c] */
    MUL,       /* r[a] = r[b] * r[c] */
    ADD_CONST, /* r[a] = r[b] + c */
    AND_CONST, /* r[a] = r[b] & c */
    SHIFT,     /* r[a] = r[b] >> c */
    STORE,     /* memory[r[a]] = r[b] */
    LOAD,      /* r[a] = memory[r[b]] */
    JUMP,      /* go to c */
    JUMP_ZERO, /* if r[a] is 0 go to c */
    JUMP_LESS, /* if r[a] < r[b] go to c */
    CALL,      /* push the next instruction's number and go to c */
    RETURN,    /* go to the number popped */
    HALT,
};

struct insn {
    uint8_t opcode, a, b, c;
};

#define LIMIT 250 /* the numbers looked at are below this */
#define MEMORY 256

static uint32_t memory[MEMORY];

/* Executes until HALT; r[0] is the result. */
static uint32_t interpret(const struct insn *program, uint32_t limit)
{
    uint32_t r[16] = {0}, stack[8];
    uint32_t *top = stack;
    const struct insn *next = program;

    r[15] = limit;
    for (;;) {
        struct insn insn = *next++;
        switch ((enum opcode)insn.opcode) {
        case SET:
            r[insn.a] = insn.b;
            break;
        case MOVE:
            r[insn.a] = r[insn.b];
            break;
        case ADD:
            r[insn.a] = r[insn.b] + r[insn.c];
            break;
        case SUB:
            r[insn.a] = r[insn.b] - r[insn.c];
            break;
        case MUL:
            r[insn.a] = r[insn.b] * r[insn.c];
            break;
        case ADD_CONST:
            r[insn.a] = r[insn.b] + insn.c;
            break;
        case AND_CONST:
            r[insn.a] = r[insn.b] & insn.c;
            break;
        case SHIFT:
            r[insn.a] = r[insn.b] >> insn.c;
            break;
        case STORE:
            memory[r[insn.a] % MEMORY] = r[insn.b];
            break;
        case LOAD:
            r[insn.a] = memory[r[insn.b] % MEMORY];
            break;
        case JUMP:
            next = program + insn.c;
            break;
        case JUMP_ZERO:
            if (r[insn.a] == 0)
                next = program + insn.c;
            break;
        case JUMP_LESS:
            if (r[insn.a] < r[insn.b])
                next = program + insn.c;
            break;
        case CALL:
            *top++ = next - program;
            next = program + insn.c;
            break;
        case RETURN:
            next = program + *--top;
            break;
        case HALT:
            return r[0];
        }
    }
}

/* r15: the limit. r14: 0. r1: the number looked at. */
static const struct insn program[] = {
    /* Collatz: memory[n] becomes the length of n's sequence, r0 the greatest of them. */
    [0] = {SET, 0, 0, 0},
    [1] = {SET, 1, 1, 0},
    [2] = {CALL, 0, 0, 20},
    [3] = {STORE, 1, 2, 0},
    [4] = {LOAD, 3, 1, 0},
    [5] = {JUMP_LESS, 3, 0, 7},
    [6] = {MOVE, 0, 3, 0},
    [7] = {ADD_CONST, 1, 1, 1},
    [8] = {JUMP_LESS, 1, 15, 2},
    /* Primes: r9 counts them. */
    [9] = {SET, 9, 0, 0},
    [10] = {SET, 1, 2, 0},
    [11] = {CALL, 0, 0, 40},
    [12] = {ADD, 9, 9, 2},
    [13] = {ADD_CONST, 1, 1, 1},
    [14] = {JUMP_LESS, 1, 15, 11},
    /* r0 = r0 * 256 + r9 */
    [15] = {SET, 4, 255, 0},
    [16] = {ADD_CONST, 4, 4, 1},
    [17] = {MUL, 0, 0, 4},
    [18] = {ADD, 0, 0, 9},
    [19] = {HALT, 0, 0, 0},

    /* r2 = the length of the sequence from r1 down to 1; r3 to r5 are used. */
    [20] = {SET, 2, 1, 0},
    [21] = {MOVE, 3, 1, 0},
    [22] = {SET, 5, 2, 0},
    [23] = {JUMP_LESS, 3, 5, 33},
    [24] = {ADD_CONST, 2, 2, 1},
    [25] = {AND_CONST, 4, 3, 1},
    [26] = {JUMP_ZERO, 4, 0, 31},
    [27] = {ADD, 4, 3, 3}, /* odd: 3 n + 1 */
    [28] = {ADD, 3, 3, 4},
    [29] = {ADD_CONST, 3, 3, 1},
    [30] = {JUMP, 0, 0, 23},
    [31] = {SHIFT, 3, 3, 1}, /* even: n / 2 */
    [32] = {JUMP, 0, 0, 23},
    [33] = {RETURN, 0, 0, 0},

    /* r2 = 1 if r1 is prime, else 0; r3 to r5 are used. */
    [40] = {SET, 2, 0, 0},
    [41] = {SET, 3, 2, 0},
    [42] = {MUL, 4, 3, 3},
    [43] = {JUMP_LESS, 1, 4, 52},
    [44] = {MOVE, 5, 1, 0},
    [45] = {JUMP_LESS, 5, 3, 48}, /* r5 = r1 modulo r3 */
    [46] = {SUB, 5, 5, 3},
    [47] = {JUMP, 0, 0, 45},
    [48] = {JUMP_ZERO, 5, 0, 53},
    [49] = {ADD_CONST, 3, 3, 1},
    [50] = {JUMP, 0, 0, 42},
    [52] = {SET, 2, 1, 0},
    [53] = {RETURN, 0, 0, 0},
};

static uint32_t round_of_bytecode(void)
{
    return interpret(program, LIMIT * one);
}

/* The longest sequence from a number below 250 is that from 231, of 128 numbers; 53 primes are below 250. */
int main(int argc, char **argv)
{
    return run_rounds("interpreter", round_of_bytecode, 128 * 256 + 53, ROUNDS, argc, argv);
}
