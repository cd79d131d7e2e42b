/*
 * The kernel: its processes and what its files offer to each other.
 *
 *   boot.S      page tables of the kernel, MMU on          vectors.S   into the kernel, out of it
 *   trap.c      which exception it is, what comes of it    syscall.c   what programs may ask for
 *   process.c   fork, exec, exit, wait, the scheduler      memory.c    frames, address spaces, pages on demand
 *   devices.c   console, timer, interrupts, the end        programs.S  the programs, to exec
 *   pages.S     pages cleared and copied
 *
 * With -DPV it is a kernel in user mode: pv_boot.S, pv_vectors.S and pv.c take the places of the first two and devices.c.
 *
 * There is one kernel stack, and nothing on it between two exceptions. A system call that has to wait does not stop
 * in its middle: it marks its process as waiting, and is made again when that wakes up.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "layout.h"
#include "lib.h"
#include "syscalls.h"

#define TICK 250 /* microseconds */
#define PROCESSES 24

/* The registers of a process while it does not run. vectors.S knows the layout. */
struct frame {
    uint32_t r[13], sp, lr, pc, cpsr;
};

/* A part of an address space. What is not mapped yet will be, filled from `source`, with zeros after it. */
struct area {
    uint32_t start, end; /* whole pages; start == end: nothing */
    const char *source;
    uint32_t source_size;
    bool writable, executable;
};

enum { TEXT, DATA, HEAP, STACK, AREAS };

enum state { FREE, READY, SLEEPING, WAITING, ZOMBIE };

struct process {
    struct frame frame; /* first, for vectors.S */
    enum state state;
    int pid, status;
    struct process *parent; /* who may wait for it; 0: nobody will */
    char name[12];
    struct area areas[AREAS];
    uint32_t *table;    /* first-level */
    uint32_t asid;      /* address space identifier, of ARMv6 */
    unsigned wake;      /* SLEEPING: until this tick */
    unsigned preempted; /* ticks that came while it ran */
    unsigned limit;     /* killed after so many more; 0: never */
};

/* A program as linked into the kernel. */
struct program {
    const char *name;
    const char *file; /* ELF */
};

#define CP15_WRITE(value, where) asm volatile("mcr p15, 0, %0, " where : : "r"(value) : "memory")
#define CP15_READ(where)                                               \
    ({                                                                 \
        uint32_t value_;                                               \
        asm volatile("mrc p15, 0, %0, " where : "=r"(value_));         \
        value_;                                                        \
    })

/* Until an interrupt is pending. It need not be taken: the I bit is set, as always in the kernel. */
#ifdef PV
void wait_for_interrupt(void);
#else
static inline void wait_for_interrupt(void)
{
    CP15_WRITE(0, "c7, c0, 4");
}
#endif

/* What an abort was about: fault status and address. And whether an exception is the kernel's own, which makes none. */
#ifdef PV
#define PV_PAGE(offset) (*(volatile uint32_t *)(PV_FRAME + (offset)))
#define PREFETCH_STATUS PV_PAGE(PV_STATUS)
#define DATA_STATUS PV_PAGE(PV_STATUS)
#define DATA_ADDRESS PV_PAGE(PV_ADDRESS)
#define FROM_KERNEL(frame) PV_PAGE(PV_IN_KERNEL)
#else
#define PREFETCH_STATUS CP15_READ("c5, c0, 1")
#define DATA_STATUS CP15_READ("c5, c0, 0")
#define DATA_ADDRESS CP15_READ("c6, c0, 0")
#define FROM_KERNEL(frame) (((frame)->cpsr & MODE_MASK) != MODE_USER)
#endif

/* A byte or a word of the current process, read with the user's permissions, which space_range() has checked. */
static inline char user_byte(uint32_t address)
{
    uint32_t byte;
    asm volatile("ldrbt %0, [%1]" : "=&r"(byte) : "r"(address) : "memory");
    return byte;
}

static inline uint32_t user_word(uint32_t address)
{
    uint32_t word;
    asm volatile("ldrt %0, [%1]" : "=&r"(word) : "r"(address) : "memory");
    return word;
}

/* pages.S, programs.S */
void zero_page(void *page);
void copy_page(void *to, const void *from);
extern const struct program programs[];

/* memory.c */
extern unsigned free_frames;
void memory_init(void);
void space_init(struct process *process, unsigned slot);
void space_share(struct process *child, struct process *parent);
void space_release(struct process *process);
void space_switch(struct process *process);
void space_unmap(struct process *process, uint32_t start, uint32_t end);
bool space_fault(uint32_t address, bool write);
bool space_range(uint32_t address, uint32_t size, bool write);
void code_written(void);

/* process.c */
extern struct process *current;
extern unsigned ticks;
void clock_tick(void);
void schedule(void);
void preempt(void);
int process_fork(void);
bool process_exec(const char *name, uint32_t argument);
void process_exit(int status);
void process_kill(const char *reason, ...);
int process_wait(int pid, uint32_t status_address);

/* syscall.c */
void syscall(struct frame *frame);

#ifdef PV
/* pv.c */
void entry_set(uint32_t *entry, uint32_t value);
void page_protect(void *page, bool writable);
void table_name(uint32_t *table, unsigned slot);
void table_switch(unsigned slot);
void entries_done(void);
void flush_code(void);
#endif

/* devices.c, or pv.c */
void devices_init(void);
void interrupt(void);
void console_put(void *unused, char c);
void console_write(uint32_t text, uint32_t length); /* of the current process, which may read it */
void print(const char *text, ...);
#ifdef BENCH
unsigned notify(void); /* raises an interrupt, which is taken when a process goes on. How many there were before */
unsigned events(unsigned times); /* as many, each of which the kernel takes at once. How many it has taken */
#endif
void machine_reset(void) __attribute__((noreturn));

#endif
