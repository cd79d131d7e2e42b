/*
 * What the para-virtual kernel has instead of devices and of the MMU's registers: the hypervisor.
 */
#include "kernel.h"

#define PHYSICAL(pointer) ((uint32_t)(pointer)-KERNEL_BASE)

extern uint32_t direct_map[];

/* As struct shared_info of Xen on ARM begins: the information of the virtual CPU, and a bit for each port. */
static struct {
    uint8_t upcall_pending, upcall_mask, unused[6];
    uint64_t selected;
    uint32_t others[8];
    uint32_t pending[128], mask[128];
} volatile *const shared = (void *)SHARED_INFO;

static uint32_t timer_port;

static uint32_t hypercall(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    register uint32_t r0 asm("r0") = a, r1 asm("r1") = b, r2 asm("r2") = c, r3 asm("r3") = d, r12 asm("r12") = number;
    asm volatile("svc #0" : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3) : "r"(r12) : "memory");
    return r0;
}

static void must(uint32_t result, const char *what)
{
    if (result) {
        print("minios: panic: the hypervisor refuses %s: %x\n", what, result);
        machine_reset();
    }
}

/* Page tables: descriptors that wait, in order. In one page, the hypervisor looks at them without delay. */
static struct {
    uint64_t address, value;
} updates[64] __attribute__((aligned(1024)));
static unsigned waiting;

void entries_done(void)
{
    if (waiting)
        must(hypercall(MMU_UPDATE, (uint32_t)updates, waiting, 0, DOMAIN_SELF), "a descriptor");
    waiting = 0;
}

void entry_set(uint32_t *entry, uint32_t value)
{
    if (waiting == sizeof updates / sizeof *updates)
        entries_done();
    updates[waiting].address = PHYSICAL(entry);
    updates[waiting++].value = value;
}

static void extended(uint32_t command, uint32_t frame, uint32_t argument, const char *what)
{
    uint64_t operation[3] = {command, frame, argument};
    entries_done();
    must(hypercall(MMUEXT_OP, (uint32_t)operation, 1, 0, DOMAIN_SELF), what);
}

void page_protect(void *page, bool writable)
{
    uint32_t address = PHYSICAL(page);
    entry_set(&direct_map[(address - RAM_BASE) / PAGE], address | L2_PAGE | (writable ? L2_USER_WRITE : L2_USER_READ));
}

/* The hypervisor switches to a table by its number without looking at it again. */
void table_name(uint32_t *table, unsigned slot)
{
    extended(SET_USER_ROOT, PHYSICAL(table) / PAGE, slot, "the table of a process");
}

void table_switch(unsigned slot)
{
    must(hypercall(SWITCH_USER_ROOT, slot, 0, 0, 0), "a switch");
}

void flush_code(void)
{
    extended(FLUSH_CODE, 0, 0, "a flush of the instruction cache");
}

#ifdef BENCH
static uint32_t own[2]; /* the virtual CPU, and the port */
static unsigned notified;

unsigned notify(void)
{
    hypercall(EVENT_CHANNEL_OP, SEND, (uint32_t)&own[1], 0, 0);
    return notified;
}
#endif

/* Events: the timer's is the only one, but for a benchmark's. */
void devices_init(void)
{
    uint32_t bind[3] = {VIRQ_TIMER, 0, 0};
    must(hypercall(EVENT_CHANNEL_OP, BIND_VIRQ, (uint32_t)bind, 0, 0), "the timer's event");
    timer_port = bind[2];
#ifdef BENCH
    must(hypercall(EVENT_CHANNEL_OP, BIND_IPI, (uint32_t)own, 0, 0), "an event of its own");
#endif
    must(hypercall(SET_PERIODIC_TIMER, TICK * 1000, 0, 0, 0), "the timer");
}

void interrupt(void)
{
    shared->upcall_pending = 0;
    __atomic_store_n(&shared->selected, 0, __ATOMIC_SEQ_CST);
    /* The hypervisor opens the first port that is free: all are in the first word. */
    uint32_t pending = __atomic_exchange_n(&shared->pending[0], 0, __ATOMIC_SEQ_CST);
    if (pending >> timer_port & 1)
        clock_tick();
#ifdef BENCH
    if (pending >> own[1] & 1)
        notified++;
#endif
}

#ifdef BENCH
/* From an event that the kernel takes where it stands, which the hypervisor has masked. */
void upcall(void)
{
    do {
        shared->upcall_mask = 1;
        interrupt();
        shared->upcall_mask = 0;
    } while (shared->upcall_pending);
}

unsigned events(unsigned times)
{
    unsigned before = notified;
    shared->upcall_mask = 0;
    while (times--)
        hypercall(EVENT_CHANNEL_OP, SEND, (uint32_t)&own[1], 0, 0);
    shared->upcall_mask = 1;
    return notified - before;
}
#endif

void wait_for_interrupt(void)
{
    hypercall(SCHED_OP, BLOCK, 0, 0, 0);
}

/* The console gets what was written at once. */
static char text[PAGE] __attribute__((aligned(PAGE)));
static unsigned length;

static void console_flush(void)
{
    if (length)
        hypercall(CONSOLE_IO, 0, length, (uint32_t)text, 0);
    length = 0;
}

void console_put(void *unused, char c)
{
    (void)unused;
    text[length++] = c;
    if (length == sizeof text)
        console_flush();
}

void console_write(uint32_t from, uint32_t size)
{
    while (size) {
        if (size >= 4 && from % 4 == 0 && length % 4 == 0) {
            *(uint32_t *)(text + length) = user_word(from);
            length += 4, from += 4, size -= 4;
        } else {
            text[length++] = user_byte(from++);
            size--;
        }
        if (length == sizeof text)
            console_flush();
    }
    console_flush();
}

void print(const char *message, ...)
{
    va_list arguments;
    va_start(arguments, message);
    format(console_put, 0, message, arguments);
    va_end(arguments);
    console_flush();
}

void machine_reset(void)
{
    uint32_t reason = 0;
    for (;;)
        hypercall(SCHED_OP, SHUTDOWN, (uint32_t)&reason, 0, 0);
}
