/*
 * A program that is slow because it changes its own code: a filter whose gain is an immediate in an instruction,
 * which tune() writes over for every few samples, as programs did that had no register left.
 *
 * patching [fixed]
 *
 * With "fixed" the gain is an argument instead. docs/tutorial.md finds the reason with `dbt trace`.
 */
#include <stdint.h>
#include <stdio.h>

#define BLOCKS 200000
#define SAMPLES 2000

extern uint32_t filter_patched(uint32_t sum, const uint32_t *samples, int count);
extern uint32_t gain_instruction;

/* The literal 1 in the second instruction of the loop is what tune() changes. */
__asm__(".text\n"
        ".arm\n"
        ".align 2\n"
        ".global filter_patched\n"
        ".type filter_patched, %function\n"
        "filter_patched:\n"
        "1:  ldr r3, [r1], #4\n"
        ".global gain_instruction\n"
        "gain_instruction:\n"
        "    add r3, r3, #1\n"
        "    eor r0, r3, r0, ror #27\n"
        "    subs r2, r2, #1\n"
        "    bne 1b\n"
        "    bx lr\n"
        ".size filter_patched, . - filter_patched\n");

static __attribute__((noinline)) uint32_t filter(uint32_t sum, const uint32_t *samples, int count, uint32_t gain)
{
    while (count--)
        sum = (sum >> 27 | sum << 5) ^ (*samples++ + gain);
    return sum;
}

static __attribute__((noinline)) void tune(uint32_t gain)
{
    uint32_t zero = 0;

    *(volatile uint32_t *)&gain_instruction = 0xe2833000 | (gain & 0xff); /* add r3, r3, #gain */
    __asm__ volatile("mcr p15, 0, %0, c7, c5, 0" : : "r"(zero) : "memory"); /* invalidate the instruction cache */
}

int main(int argc, char **argv)
{
    static uint32_t samples[SAMPLES];
    uint32_t sum = 1;

    (void)argv;
    for (int i = 0; i < SAMPLES; i++)
        samples[i] = i * 2654435761u;
    for (int block = 0; block < BLOCKS; block++) {
        if (argc > 1) {
            sum = filter(sum, samples, SAMPLES, block & 0xff);
        } else {
            tune(block);
            sum = filter_patched(sum, samples, SAMPLES);
        }
    }
    iprintf("%08lx\n", (unsigned long)sum);
    return 0;
}
