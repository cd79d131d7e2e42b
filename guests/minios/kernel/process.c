/*
 * Processes: how they begin, end, wait for each other and take turns.
 */
#include "kernel.h"

static struct process processes[PROCESSES];
struct process *current = processes;
unsigned ticks;

static int last_pid;
static unsigned switches, idles; /* by the timer from one process to another; nobody ready */
static unsigned all_frames;

static void start_process(struct process *process, struct process *parent)
{
    process->pid = ++last_pid;
    process->parent = parent;
    process->preempted = process->limit = 0;
    process->state = READY;
    space_init(process, process - processes);
}

/* Round robin: whoever is ready and next in the table. While nobody is, the processor sleeps. */
void schedule(void)
{
    for (;;) {
        unsigned slot = current - processes;
        for (int i = 1; i <= PROCESSES; i++) {
            struct process *next = &processes[(slot + i) % PROCESSES];
            if (next->state == READY) {
                if (next != current)
                    space_switch(next);
                current = next;
                return;
            }
        }
        idles++;
        wait_for_interrupt();
        interrupt();
    }
}

/* From the timer's interrupt. */
void clock_tick(void)
{
    ticks++;
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->state == SLEEPING && (int)(ticks - process->wake) >= 0)
            process->state = READY;
}

/* A tick has come while the current process was running: it is the next one's turn. */
void preempt(void)
{
    struct process *before = current;
    current->preempted++;
    if (current->limit && --current->limit == 0) {
        process_kill("its time is up");
        return;
    }
    schedule();
    switches += current != before;
}

int process_fork(void)
{
    struct process *child = processes;
    while (child->state != FREE)
        if (++child == processes + PROCESSES)
            return -1;
    start_process(child, current);
    child->frame = current->frame;
    child->frame.r[0] = 0;
    memcpy(child->name, current->name, sizeof child->name);
    space_share(child, current);
    return child->pid;
}

/* As much of the ELF format as we need: offsets of words in the header and in a program header. */
#define ELF_ENTRY 6
#define ELF_PROGRAM_HEADERS 7
#define ELF_PROGRAM_HEADER_COUNT 11 /* the lower half of the word */
#define PT_LOAD 1
#define PF_W 2

struct program_header {
    uint32_t type, offset, address, physical, file_size, memory_size, flags, align;
};

/* The current process becomes a program. Its pages are not read now, but when they are touched. */
bool process_exec(const char *name, uint32_t argument)
{
    const struct program *program = programs;
    while (program->name && !same_text(program->name, name))
        program++;
    if (!program->name)
        return false;

    space_release(current);
    const uint32_t *header = (const uint32_t *)program->file;
    const struct program_header *segment = (const void *)(program->file + header[ELF_PROGRAM_HEADERS]);
    struct area *areas = current->areas;
    for (unsigned n = header[ELF_PROGRAM_HEADER_COUNT] & 0xffff; n; n--, segment++) {
        if (segment->type != PT_LOAD)
            continue;
        bool writable = segment->flags & PF_W;
        uint32_t end = (segment->address + segment->memory_size + PAGE - 1) & ~(PAGE - 1);
        areas[writable ? DATA : TEXT] = (struct area){
            segment->address, end, program->file + segment->offset, segment->file_size, writable, !writable,
        };
        if (areas[HEAP].start < end)
            areas[HEAP].start = areas[HEAP].end = end;
    }
    areas[HEAP].writable = areas[HEAP].executable = true; /* there, programs may write programs */
    areas[STACK] = (struct area){.start = USER_END - STACK_SIZE, .end = USER_END, .writable = true};

    unsigned length = 0;
    for (; program->name[length] && length < sizeof current->name - 1; length++)
        current->name[length] = program->name[length];
    current->name[length] = 0;
    current->frame = (struct frame){.r = {argument}, .sp = USER_END, .pc = header[ELF_ENTRY], .cpsr = MODE_USER};
    return true;
}

static void end_of_system(void) __attribute__((noreturn));
static void end_of_system(void)
{
    print("minios: %d processes; time-shared: %s; idle at times: %s; all memory returned: %s\n", last_pid,
          switches ? "yes" : "no", idles ? "yes" : "no", free_frames == all_frames ? "yes" : "no");
    machine_reset();
}

/* The current process ends; its status stays until the parent has asked for it. */
void process_exit(int status)
{
    space_release(current);
    if (current->pid == 1)
        end_of_system();
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->parent == current) {
            process->parent = 0;
            if (process->state == ZOMBIE)
                process->state = FREE;
        }
    current->status = status;
    current->state = current->parent ? ZOMBIE : FREE;
    if (current->parent && current->parent->state == WAITING)
        current->parent->state = READY;
    schedule();
}

void process_kill(const char *reason, ...)
{
    va_list arguments;
    va_start(arguments, reason);
    print("    %s killed at %x: ", current->name, current->frame.pc);
    format(console_put, 0, reason, arguments);
    print("\n");
    va_end(arguments);
    process_exit(KILLED);
}

int process_wait(int pid, uint32_t status_address)
{
    for (struct process *child = processes; child < processes + PROCESSES; child++) {
        if (child->state == FREE || child->parent != current || child->pid != pid)
            continue;
        if (child->state == ZOMBIE) {
            /* As the user would store it, with the user's permissions. */
            asm volatile("strt %0, [%1]" : : "r"(child->status), "r"(status_address) : "memory");
            child->state = FREE;
            child->parent = 0;
            return pid;
        }
        current->state = WAITING;
        current->frame.pc -= 4; /* to the SVC again, with the same r0, when a child has ended */
        schedule();
        return pid;
    }
    return -1;
}

void kernel_main(void)
{
    devices_init();
    memory_init();
    all_frames = free_frames;
    print("minios: it begins\n");
    start_process(current, 0);
    space_switch(current);
    process_exec("init", 0);
}
