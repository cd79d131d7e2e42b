/*
 * Self-modifying code: machine code is written into a buffer, run, patched and run again, many times.
 *
 * smc [rounds]
 *
 * The buffers lie in the data segment and on the heap, so stores to data beside the code come all the time.
 * Hardware with caches must be told of new code. synchronize() does what is enough with the data cache off, as it
 * is after reset, in a privileged mode; in user mode the operating system would have to be asked.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t function(uint32_t);

#define ADD_R0_IMMEDIATE 0xe2800000 /* add r0, r0, #imm8 */
#define SUB_R0_IMMEDIATE 0xe2400000 /* sub r0, r0, #imm8 */
#define EOR_R0_IMMEDIATE 0xe2200000 /* eor r0, r0, #imm8 */
#define MOV_R0_R0_LSL 0xe1a00000    /* mov r0, r0, lsl #shift; the shift is in bits 11 to 7 */
#define LDR_R1_CODE_3 0xe59f1004    /* ldr r1, [pc, #4] in code[0] loads code[3] */
#define ADD_R0_R0_R1 0xe0800001
#define BX_LR 0xe12fff1e

static void synchronize(void)
{
    uint32_t cpsr, zero = 0;

    __asm__ volatile("mrs %0, cpsr" : "=r"(cpsr));
    if ((cpsr & 0x1f) != 0x10) /* not in user mode */
        __asm__ volatile("mcr p15, 0, %0, c7, c5, 0" : : "r"(zero) : "memory"); /* invalidate the instruction cache */
}

/* Separate, so that the compiler cannot know what is called. */
static __attribute__((noinline)) uint32_t call(const uint32_t *code, uint32_t argument)
{
    return ((function *)(uintptr_t)code)(argument);
}

/* A function that is code and data in one: its counter is on the same page, a word after its last instruction. */
struct patched {
    uint32_t code[4];
    uint32_t calls;
};

static uint32_t call_counted(struct patched *p, uint32_t argument)
{
    p->calls++;
    return call(p->code, argument);
}

/* Patches one instruction of a function that has been run before, between every two runs. */
static int patch_instruction(struct patched *p, int rounds)
{
    p->code[1] = MOV_R0_R0_LSL | 1 << 7;
    p->code[2] = BX_LR;
    for (int i = 0; i < rounds; i++) {
        uint32_t immediate = i & 255, expected;
        switch (i % 3) {
        case 0:
            p->code[0] = ADD_R0_IMMEDIATE | immediate;
            expected = (1000 + immediate) << 1;
            break;
        case 1:
            p->code[0] = SUB_R0_IMMEDIATE | immediate;
            expected = (1000 - immediate) << 1;
            break;
        default:
            p->code[0] = EOR_R0_IMMEDIATE | immediate;
            expected = (1000 ^ immediate) << 1;
        }
        synchronize();
        for (int again = 0; again < 3; again++)
            if (call_counted(p, 1000) != expected)
                return 0;
    }
    return p->calls == 3u * rounds;
}

/* Patches a literal: no instruction changes, only the constant it loads. */
static int patch_literal(uint32_t *code, int rounds)
{
    code[0] = LDR_R1_CODE_3;
    code[1] = ADD_R0_R0_R1;
    code[2] = BX_LR;
    for (int i = 0; i < rounds; i++) {
        code[3] = i * 0x01020304;
        synchronize();
        if (call(code, i) != (uint32_t)i * 0x01020305)
            return 0;
    }
    return 1;
}

static __attribute__((noinline, noclone, aligned(4))) uint32_t triple_plus_one(uint32_t x)
{
    return 3 * x + 1;
}

/* Copies a compiled function about; its code does not depend on its place. Each copy overwrites part of the last. */
static int move_function(uint32_t *buffer, int words, int rounds)
{
    const int size = 16; /* words, more than the function has at any optimisation */

    for (int i = 0; i < rounds; i++) {
        uint32_t *copy = buffer + i * 3 % (words - size);
        memcpy(copy, (const void *)(uintptr_t)triple_plus_one, size * sizeof *copy);
        synchronize();
        if (call(copy, i) != 3u * i + 1)
            return 0;
    }
    return 1;
}

static int report(const char *what, int good)
{
    printf("%s: %s\n", what, good ? "ok" : "wrong");
    return good;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 60;
    static struct patched in_data;
    static uint32_t literal[4];
    const int words = 1500; /* several pages */
    uint32_t *heap = malloc(words * sizeof *heap);

    if (heap == NULL) {
        puts("out of memory");
        return 1;
    }
    memset(heap, 0, words * sizeof *heap);
    int good = report("patched in the data segment", patch_instruction(&in_data, rounds));
    good &= report("patched on the heap", patch_instruction((struct patched *)heap, rounds));
    good &= report("patched literal", patch_literal(literal, rounds));
    good &= report("moved function", move_function(heap, words, rounds));
    puts(good ? "smc: ok" : "smc: wrong");
    return good ? 0 : 1;
}
