/*
 * The devices of the board: console, timer, interrupt controller, and the end of the machine.
 */
#include "kernel.h"

#define REGISTER(address) (*(volatile uint32_t *)((address) - DEVICES + DEVICES_BASE))

/* PL011: the console. */
#define UART_DATA REGISTER(0x101f1000)
#define UART_FLAGS REGISTER(0x101f1018)
#define UART_CONTROL REGISTER(0x101f1030)
#define UART_BUSY 0x08 /* in the flags: it is sending */
#define UART_FULL 0x20 /* in the flags: the transmit FIFO is */
#define UART_ENABLE 0x301 /* receiver, transmitter, and the whole */

/* SP804: the first of its two timers, which counts down at 1 MHz. */
#define TIMER_LOAD REGISTER(0x101e2000)
#define TIMER_CONTROL REGISTER(0x101e2008)
#define TIMER_CLEAR REGISTER(0x101e200c)
#define TIMER_ON 0xe2 /* enabled, periodic, with interrupt, 32 bits */

/* PL190: the interrupt controller. It gives the address of the handler; reading begins, writing ends the interrupt. */
#define VIC_ENABLE REGISTER(0x10140010)
#define VIC_ADDRESS REGISTER(0x10140030)
#define VIC_DEFAULT_ADDRESS REGISTER(0x10140034)
#define VIC_VECTOR_ADDRESS REGISTER(0x10140100)
#define VIC_VECTOR_CONTROL REGISTER(0x10140200)
#define VIC_VECTOR_ON 0x20
#define TIMER_INTERRUPT 4

/* The system registers of the board. */
#define SYSTEM_LOCK REGISTER(0x10000020)
#define SYSTEM_RESET REGISTER(0x10000040)

static void timer_interrupt(void)
{
    TIMER_CLEAR = 0;
    clock_tick();
}

static void no_interrupt(void)
{
}

#ifdef KEEP_CONSOLE
/* The last lines that were printed, for whoever looks at a machine that has stopped; and what is done before a reset. */
static struct {
    unsigned length;
    char text[2300];
    void (*before_reset)(void);
} console;

/* Keep a character. When the text is full, the next line begins it anew. */
static void keep(char c)
{
    console.text[console.length++] = c;
    if (c == '\n' && console.length >= sizeof console.text)
        console.length = 0;
}

static void console_drain(void)
{
    while (UART_FLAGS & UART_BUSY)
        ;
}
#endif

void devices_init(void)
{
    UART_CONTROL = UART_ENABLE;
#ifdef KEEP_CONSOLE
    console.before_reset = console_drain;
#endif

    VIC_DEFAULT_ADDRESS = (uint32_t)no_interrupt;
    VIC_VECTOR_ADDRESS = (uint32_t)timer_interrupt;
    VIC_VECTOR_CONTROL = VIC_VECTOR_ON | TIMER_INTERRUPT;
    VIC_ENABLE = 1 << TIMER_INTERRUPT;

    TIMER_LOAD = TICK;
    TIMER_CONTROL = TIMER_ON;
}

void interrupt(void)
{
    void (*handler)(void) = (void (*)(void))VIC_ADDRESS;
    handler();
    VIC_ADDRESS = 0;
}

void console_put(void *unused, char c)
{
    (void)unused;
    while (UART_FLAGS & UART_FULL)
        ;
    UART_DATA = c;
#ifdef KEEP_CONSOLE
    keep(c);
#endif
}

void print(const char *text, ...)
{
    va_list arguments;
    va_start(arguments, text);
    format(console_put, 0, text, arguments);
    va_end(arguments);
}

/* A reset ends the run where there is nothing to boot again: qemu-system-arm -no-reboot. */
void machine_reset(void)
{
#ifdef KEEP_CONSOLE
    void (*action)(void) = console.before_reset;
    console.before_reset = 0; /* once, even if it panics */
    if (action)
        action();
#endif
    SYSTEM_LOCK = 0xa05f;
    SYSTEM_RESET = 0x105;
    for (;;)
        wait_for_interrupt();
}

/* What follows is behind the rest, so that minios-console.elf has the lines of what is before it. */
void console_write(uint32_t text, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        console_put(0, user_byte(text + i));
}

#ifdef BENCH
#define VIC_SOFTWARE REGISTER(0x10140018)
#define VIC_SOFTWARE_CLEAR REGISTER(0x1014001c)
#define SOFTWARE_INTERRUPT 1

static unsigned notified;

static void software_interrupt(void)
{
    VIC_SOFTWARE_CLEAR = 1 << SOFTWARE_INTERRUPT;
    notified++;
}

unsigned notify(void)
{
    if (!notified) { /* the first time */
        (&VIC_VECTOR_ADDRESS)[1] = (uint32_t)software_interrupt;
        (&VIC_VECTOR_CONTROL)[1] = VIC_VECTOR_ON | SOFTWARE_INTERRUPT;
        VIC_ENABLE = 1 << SOFTWARE_INTERRUPT;
    }
    VIC_SOFTWARE = 1 << SOFTWARE_INTERRUPT;
    return notified;
}

unsigned events(unsigned times)
{
    unsigned before = notify(); /* that one is taken, too */
    asm volatile("cpsie i" ::: "memory");
    while (--times)
        VIC_SOFTWARE = 1 << SOFTWARE_INTERRUPT;
    asm volatile("cpsid i" ::: "memory");
    return notified - before;
}
#endif
