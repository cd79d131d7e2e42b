/*
 * What accesses to devices of the board virt cost: makes one kind of them many times.
 *
 *     board_io <kind> <times>
 *
 * Runs on a Cortex-A15 in supervisor mode, under semihosting: see tools/bench_io.py. The MMU is on, with RAM and devices
 * mapped one to one.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GICD ((volatile uint32_t *)0x08000000)
#define GICC ((volatile uint32_t *)0x08010000)
#define UART ((volatile uint32_t *)0x09000000)
#define VIRTIO ((volatile uint32_t *)0x0A003E00) /* the highest slot */
enum { GICD_CTLR = 0, GICD_ISENABLER = 0x100 / 4, GICD_SGIR = 0xF00 / 4 };
enum { GICC_CTLR = 0, GICC_PMR = 4 / 4, GICC_IAR = 0xC / 4, GICC_EOIR = 0x10 / 4 };
enum { UART_DR = 0, UART_FR = 0x18 / 4, UART_FULL = 1 << 5 };
enum { VIRTIO_STATUS = 0x70 / 4 };
#define TO_SELF (2u << 24)
#define SECTION_RAM 0xC0E /* domain 0, cached */
#define SECTION_DEVICE 0xC02

static uint32_t table[4096] __attribute__((aligned(16384)));

static void turn_mmu_on(void)
{
    uint32_t control;

    for (uint32_t mb = 0; mb < 4096; mb++)
        table[mb] = mb << 20 | (mb < 0x400 ? SECTION_DEVICE : SECTION_RAM);
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 2" : : "r"(0));
    __asm__ volatile("mcr p15, 0, %0, c2, c0, 0" : : "r"(table));
    __asm__ volatile("mcr p15, 0, %0, c3, c0, 0" : : "r"(1));
    __asm__ volatile("mcr p15, 0, %0, c8, c7, 0" : : "r"(0));
    __asm__ volatile("mrc p15, 0, %0, c1, c0, 0" : "=r"(control));
    __asm__ volatile("dsb\n mcr p15, 0, %0, c1, c0, 0\n isb" : : "r"(control | 1));
}

static void nothing(uint32_t times)
{
    while (times--)
        __asm__ volatile("");
}

static void polled_console(uint32_t times)
{
    while (times--) {
        while (UART[UART_FR] & UART_FULL) {
        }
        UART[UART_DR] = times % 64 ? 'a' + times % 16 : '\n';
    }
}

/* Three accesses: an interrupt is made pending, acknowledged and ended. */
static void interrupt_controller(uint32_t times)
{
    GICD[GICD_CTLR] = 1;
    GICD[GICD_ISENABLER] = 1;
    GICC[GICC_PMR] = 0xFF;
    GICC[GICC_CTLR] = 1;
    while (times--) {
        GICD[GICD_SGIR] = TO_SELF;
        GICC[GICC_EOIR] = GICC[GICC_IAR];
    }
}

/* Two accesses: the virtual timer is set, far ahead, and turned on. */
static void timer(uint32_t times)
{
    while (times--) {
        __asm__ volatile("mcr p15, 0, %0, c14, c3, 0" : : "r"(0x10000000 + times % 16));
        __asm__ volatile("mcr p15, 0, %0, c14, c3, 1" : : "r"(1));
    }
}

static void transport(uint32_t times)
{
    while (times--)
        (void)VIRTIO[VIRTIO_STATUS];
}

static const struct {
    const char *name;
    void (*run)(uint32_t);
} kinds[] = {
    {"nothing", nothing}, {"console", polled_console}, {"gic", interrupt_controller},
    {"timer", timer},     {"virtio", transport},
};

int main(int argc, char **argv)
{
    if (argc != 3) {
        puts("board_io <kind> <times>");
        return 2;
    }
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, argv[1]) != 0)
            continue;
        turn_mmu_on();
        kinds[i].run((uint32_t)strtoul(argv[2], NULL, 0));
        puts("done");
        return 0;
    }
    printf("there is no kind %s\n", argv[1]);
    return 2;
}
