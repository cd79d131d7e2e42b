/*
 * Memory: frames of RAM, and the address spaces of processes, whose pages come when they are touched.
 *
 * A frame belongs to nobody (0 references), to one process or table (1), or is shared copy-on-write since a fork: then
 * it is mapped without the permission to write, and who writes to it is given a copy.
 */
#include "kernel.h"

#define VIRTUAL(physical) ((void *)((physical) + KERNEL_BASE))
#define PHYSICAL(pointer) ((uint32_t)(pointer)-KERNEL_BASE)
#define FRAME_OF(entry) ((entry) & ~(PAGE - 1))
#define NUMBER(frame) (((frame)-RAM_BASE) / PAGE)
#define WRITABLE(entry) (((entry)&L2_USER_WRITE) == L2_USER_WRITE)

/* With ARMv6 the upper half of all addresses has a table of its own, TTBR1's. Before, every table covers all. */
#if ARCH >= 6
#define TABLE_ENTRIES (USER_END / SECTION)
#else
#define TABLE_ENTRIES 4096
#endif

extern char __bss_end[];
extern uint32_t kernel_table[];
static uint32_t tables[PROCESSES][TABLE_ENTRIES] __attribute__((aligned(TABLE_ENTRIES * 4)));

unsigned free_frames;
static uint32_t first_free; /* physical; the first word of a free frame is the next one, 0 the last */
static uint8_t references[RAM_SIZE / PAGE];

static uint32_t frame_get(void)
{
    uint32_t frame = first_free;
    first_free = *(uint32_t *)VIRTUAL(frame); /* RAM is large enough for all processes at their limits */
    free_frames--;
    references[NUMBER(frame)] = 1;
    return frame;
}

static void frame_put(uint32_t frame)
{
    if (--references[NUMBER(frame)])
        return;
    *(uint32_t *)VIRTUAL(frame) = first_free;
    first_free = frame;
    free_frames++;
}

void memory_init(void)
{
    for (uint32_t frame = PHYSICAL(__bss_end); frame < RAM_BASE + RAM_SIZE; frame += PAGE) {
        references[NUMBER(frame)] = 1;
        frame_put(frame);
    }
#ifdef PV
    for (char *page = (char *)tables; page < (char *)tables + sizeof tables; page += PAGE)
        page_protect(page, false);
    for (unsigned slot = 0; slot < PROCESSES; slot++)
        table_name(tables[slot], slot);
#endif
}

/*
 * A table is the MMU's alone in the para-virtual form. The hypervisor writes to it, when it is told that the entries
 * that were set are done: before the table is read, and before a process goes on.
 */
#ifdef PV
#define ENTRIES_DONE entries_done()
#else
#define ENTRIES_DONE (void)0
#endif

#ifndef PV
static void entry_set(uint32_t *entry, uint32_t value)
{
    *entry = value;
}

static void page_protect(void *page, bool writable)
{
    (void)page;
    (void)writable;
}

/* What was written to a page table must have left the write buffer before the MMU looks for it. */
static void drain_writes(void)
{
    CP15_WRITE(0, "c7, c10, 4");
}

/* The instruction cache, were it on, might know what was there before. */
void code_written(void)
{
    drain_writes();
    CP15_WRITE(0, "c7, c5, 0");
}

static void flush_page(const struct process *process, uint32_t address)
{
    drain_writes();
    CP15_WRITE(FRAME_OF(address) | process->asid, "c8, c7, 1");
}

static void flush_space(const struct process *process)
{
    drain_writes();
#if ARCH >= 6
    CP15_WRITE(process->asid, "c8, c7, 2");
#else
    CP15_WRITE(process->asid, "c8, c7, 0"); /* whatever is written: all */
#endif
}

#else

void code_written(void)
{
    flush_code();
}

/* The hypervisor flushes what it changes. */
static void flush_page(const struct process *process, uint32_t address)
{
    (void)process;
    (void)address;
}

static void flush_space(const struct process *process)
{
    (void)process;
}
#endif

void space_init(struct process *process, unsigned slot)
{
    process->table = tables[slot];
#if ARCH >= 6
    process->asid = slot + 1; /* 0 is nobody's, see space_switch() */
#else
    process->asid = 0;
    copy_page(process->table + 2048, kernel_table + 2048); /* the kernel's half of all addresses, which never changes */
    copy_page(process->table + 3072, kernel_table + 3072);
#endif
}

void space_switch(struct process *process)
{
#ifdef PV
    table_switch(process->asid - 1);
#elif ARCH >= 6
    drain_writes();
    CP15_WRITE(0, "c13, c0, 1"); /* no fetch in between may pair the new table with the old identifier */
    CP15_WRITE(PHYSICAL(process->table), "c2, c0, 0");
    CP15_WRITE(0, "c7, c5, 4"); /* prefetch flush */
    CP15_WRITE(process->asid, "c13, c0, 1");
    CP15_WRITE(0, "c7, c5, 4");
#else
    drain_writes();
    CP15_WRITE(PHYSICAL(process->table), "c2, c0, 0");
    CP15_WRITE(0, "c8, c7, 0"); /* the TLB knows nothing of processes */
#endif
}

/*
 * The second-level descriptor of an address, or 0 if there is no table for it and none is to be made. A table is 1 KB
 * long; the four of four megabytes are a frame.
 */
static uint32_t *find_entry(struct process *process, uint32_t address, bool make)
{
    uint32_t *four = &process->table[address / SECTION & ~3];
    if (!*four) {
        if (!make)
            return 0;
        uint32_t frame = frame_get();
        zero_page(VIRTUAL(frame));
        page_protect(VIRTUAL(frame), false);
        for (int i = 0; i < 4; i++)
            entry_set(&four[i], (frame + i * 0x400) | L1_TABLE | L1_ONE);
        ENTRIES_DONE; /* it is read below */
    }
    uint32_t *table = VIRTUAL(FRAME_OF(*four));
    return &table[address % (4 * SECTION) / PAGE];
}

void space_unmap(struct process *process, uint32_t start, uint32_t end)
{
    for (uint32_t address = start; address < end; address += PAGE) {
        uint32_t *entry = find_entry(process, address, false);
        if (entry && *entry) {
            frame_put(FRAME_OF(*entry));
            entry_set(entry, 0);
            flush_page(process, address);
        }
    }
}

void space_release(struct process *process)
{
    for (struct area *area = process->areas; area < process->areas + AREAS; area++)
        space_unmap(process, area->start, area->end);
    for (unsigned i = 0; i < USER_END / SECTION; i += 4)
        if (process->table[i]) {
#ifdef PV
            uint32_t frame = FRAME_OF(process->table[i]);
            for (unsigned j = 0; j < 4; j++)
                entry_set(&process->table[i + j], 0);
            page_protect(VIRTUAL(frame), true); /* it is a table no longer */
            ENTRIES_DONE;
            frame_put(frame);
#else
            frame_put(FRAME_OF(process->table[i]));
            for (unsigned j = 0; j < 4; j++)
                process->table[i + j] = 0;
#endif
        }
    memset(process->areas, 0, sizeof process->areas);
    flush_space(process);
}

/* For fork(): all pages of the parent are the child's too, and neither may write to one before it has a copy. */
void space_share(struct process *child, struct process *parent)
{
    memcpy(child->areas, parent->areas, sizeof child->areas);
    for (struct area *area = parent->areas; area < parent->areas + AREAS; area++)
        for (uint32_t address = area->start; address < area->end; address += PAGE) {
            uint32_t *entry = find_entry(parent, address, false);
            if (entry && *entry) {
                entry_set(entry, (*entry & ~L2_USER_WRITE) | L2_USER_READ);
                ENTRIES_DONE;
                references[NUMBER(FRAME_OF(*entry))]++;
                entry_set(find_entry(child, address, true), *entry);
            }
        }
    flush_space(parent);
}

static struct area *find_area(uint32_t address)
{
    for (struct area *area = current->areas; area < current->areas + AREAS; area++)
        if (address >= area->start && address < area->end)
            return area;
    return 0;
}

static uint32_t new_page(const struct area *area, uint32_t offset)
{
    uint32_t frame = frame_get();
    zero_page(VIRTUAL(frame));
    if (offset < area->source_size) {
        uint32_t rest = area->source_size - offset;
        memcpy(VIRTUAL(frame), area->source + offset, rest < PAGE ? rest : PAGE);
    }
    return frame;
}

/* Makes the current process's access to this address possible, if it has the right to it: false if not. */
bool space_fault(uint32_t address, bool write)
{
    struct area *area = find_area(address);
    if (!area || (write && !area->writable))
        return false;
    address = FRAME_OF(address);
    uint32_t *entry = find_entry(current, address, true);
    if (*entry && (!write || WRITABLE(*entry)))
        return true;

    uint32_t frame;
    if (!*entry)
        frame = new_page(area, address - area->start);
    else if (references[NUMBER(FRAME_OF(*entry))] == 1) /* the others have their copies, or are gone */
        frame = FRAME_OF(*entry);
    else {
        frame = frame_get();
        copy_page(VIRTUAL(frame), VIRTUAL(FRAME_OF(*entry)));
        frame_put(FRAME_OF(*entry));
    }
    entry_set(entry, frame | L2_PAGE | L2_NOT_GLOBAL | (area->writable ? L2_USER_WRITE : L2_USER_READ)
                         | (area->executable ? 0 : L2_XN));
    flush_page(current, address);
#ifndef PV /* there the hypervisor knows */
    if (area->executable)
        code_written();
#endif
    return true;
}

/* The same for all of a range. An empty one is fine wherever it is. */
bool space_range(uint32_t address, uint32_t size, bool write)
{
    if (address + size < address)
        return false;
    for (uint32_t page = FRAME_OF(address); size && page < address + size; page += PAGE)
        if (!space_fault(page, write))
            return false;
    ENTRIES_DONE; /* the caller goes there */
    return true;
}
