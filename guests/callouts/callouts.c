/*
 * What a sensitive operation costs: executes one of them many times.
 *
 *     callouts <operation> <times>
 *
 * Runs on an ARM926EJ-S in supervisor mode, under semihosting: see tools/bench_callouts.py. The MMU is on, with the
 * first 256 MB and the devices mapped one to one, in two tables that say the same.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIC ((volatile uint32_t *)0x10140000)
#define COUNTER (*(volatile uint32_t *)0x1000005C)
enum { PIC_ENABLE = 0x10 / 4, PIC_SOFT = 0x18 / 4, PIC_SOFT_CLEAR = 0x1C / 4 };
#define SOFT_INTERRUPT 2
#define SECTION_RW 0xC02 /* domain 0, not cached */
#define NOWHERE ((volatile uint32_t *)0x80000000)

static uint32_t table_a[4096] __attribute__((aligned(16384)));
static uint32_t table_b[4096] __attribute__((aligned(16384)));
static uint32_t stacks[3][64];
volatile uint32_t seen;

__attribute__((naked)) static void on_svc(void)
{
    __asm__ volatile("movs pc, lr");
}

__attribute__((naked)) static void on_data_abort(void)
{
    __asm__ volatile("subs pc, lr, #4"); /* the instruction after the access */
}

__attribute__((naked)) static void on_irq(void)
{
    __asm__ volatile("push {r0, r1, r2}\n"
                     "ldr r0, =0x1014001c\n" /* PIC_SOFT_CLEAR */
                     "mov r1, #4\n" /* 1 << SOFT_INTERRUPT */
                     "str r1, [r0]\n"
                     "ldr r0, =seen\n"
                     "ldr r1, [r0]\n"
                     "add r1, r1, #1\n"
                     "str r1, [r0]\n"
                     "pop {r0, r1, r2}\n"
                     "subs pc, lr, #4\n"
                     ".ltorg");
}

static void install_handlers(void)
{
    static const uint32_t load_pc = 0xE59FF018; /* ldr pc, [pc, #24] */
    volatile uint32_t *vectors;

    __asm__("mov %0, #0" : "=r"(vectors)); /* no compiler is to know that it is null */

    for (int i = 0; i < 8; i++)
        vectors[i] = load_pc;
    vectors[8 + 2] = (uint32_t)on_svc;
    vectors[8 + 4] = (uint32_t)on_data_abort;
    vectors[8 + 6] = (uint32_t)on_irq;
}

static void set_stack(uint32_t mode, uint32_t *top)
{
    uint32_t cpsr;

    __asm__ volatile("mrs %0, cpsr\n msr cpsr_c, %1\n mov sp, %2\n msr cpsr_c, %0"
                     : "=&r"(cpsr)
                     : "r"(mode | 0xC0), "r"(top));
}

static void turn_mmu_on(void)
{
    uint32_t control;

    for (uint32_t mb = 0; mb < 4096; mb++)
        table_a[mb] = table_b[mb] = mb < 0x200 ? mb << 20 | SECTION_RW : 0;
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 0" : : "r"(table_a));
    __asm__ volatile("mcr p15, 0, %0, c3, c0, 0" : : "r"(1));
    __asm__ volatile("mcr p15, 0, %0, c8, c7, 0" : : "r"(0));
    __asm__ volatile("mrc p15, 0, %0, c1, c0, 0" : "=r"(control));
    __asm__ volatile("mcr p15, 0, %0, c1, c0, 0" : : "r"(control | 1));
}

static void svc_round_trip(uint32_t times)
{
    while (times--)
        __asm__ volatile("svc #0" : : : "lr", "memory");
}

static void exception_return(uint32_t times)
{
    uint32_t spsr;

    __asm__ volatile("mrs %0, cpsr\n msr spsr_cxsf, %0" : "=&r"(spsr));
    while (times--)
        __asm__ volatile("add lr, pc, #0\n movs pc, lr\n nop" : : : "lr", "cc");
}

static void mode_switch(uint32_t times)
{
    while (times--)
        __asm__ volatile("msr cpsr_c, %0\n msr cpsr_c, %1" : : "r"(0xD2), "r"(0xD3));
}

static void data_abort(uint32_t times)
{
    while (times--)
        (void)*NOWHERE;
}

static void table_switch(uint32_t times)
{
    while (times--) {
        __asm__ volatile("mcr p15, 0, %0, c2, c0, 0" : : "r"(table_b));
        seen++;
        __asm__ volatile("mcr p15, 0, %0, c2, c0, 0" : : "r"(table_a));
    }
}

static void tlb_flush(uint32_t times)
{
    while (times--) {
        __asm__ volatile("mcr p15, 0, %0, c8, c7, 0" : : "r"(0));
        seen++;
    }
}

static void device_read(uint32_t times)
{
    while (times--)
        (void)COUNTER;
}

static void interrupt(uint32_t times)
{
    PIC[PIC_ENABLE] = 1 << SOFT_INTERRUPT;
    __asm__ volatile("msr cpsr_c, %0" : : "r"(0x53)); /* supervisor mode, IRQ unmasked */
    while (times--)
        PIC[PIC_SOFT] = 1 << SOFT_INTERRUPT;
    __asm__ volatile("msr cpsr_c, %0" : : "r"(0xD3));
}

static const struct {
    const char *name;
    void (*run)(uint32_t);
} operations[] = {
    {"svc", svc_round_trip},     {"return", exception_return}, {"mode", mode_switch},     {"abort", data_abort},
    {"tables", table_switch},    {"flush", tlb_flush},         {"device", device_read},   {"interrupt", interrupt},
};

int main(int argc, char **argv)
{
    if (argc != 3) {
        puts("callouts <operation> <times>");
        return 2;
    }
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, argv[1]) != 0)
            continue;
        install_handlers();
        set_stack(0x12, stacks[0] + 64);
        set_stack(0x17, stacks[1] + 64);
        turn_mmu_on();
        operations[i].run((uint32_t)strtoul(argv[2], NULL, 0));
        puts("done");
        return 0;
    }
    printf("there is no operation %s\n", argv[1]);
    return 2;
}
