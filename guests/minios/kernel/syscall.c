/*
 * System calls. A process that gives a bad pointer or a bad number has an error in it, and is killed like for a fault.
 */
#include "kernel.h"

static void bad_pointer(uint32_t address)
{
    process_kill("bad pointer in a system call: %x", address);
}

static void write(struct frame *frame, uint32_t text, uint32_t length)
{
    if (!space_range(text, length, false)) {
        bad_pointer(text);
        return;
    }
    console_write(text, length);
    frame->r[0] = length;
}

static void exec(struct frame *frame, uint32_t name_address, uint32_t argument)
{
    char name[sizeof current->name];
    for (unsigned i = 0; i < sizeof name; i++) {
        if (!space_range(name_address + i, 1, false)) {
            bad_pointer(name_address);
            return;
        }
        name[i] = user_byte(name_address + i);
        if (!name[i]) {
            if (!process_exec(name, argument))
                frame->r[0] = -1;
            return;
        }
    }
    frame->r[0] = -1; /* no program has so long a name */
}

static uint32_t brk(uint32_t end)
{
    struct area *heap = &current->areas[HEAP];
    if (end) {
        if (end % PAGE || end < heap->start || end > heap->start + HEAP_SIZE)
            return -1;
        space_unmap(current, end, heap->end);
        heap->end = end;
    }
    return heap->end;
}

/* `frame` is the frame of the process that calls. When the call is over another one may be the current process. */
void syscall(struct frame *frame)
{
    uint32_t *r = frame->r;
    switch (r[7]) {
    case SYS_EXIT:
        process_exit(r[0]);
        break;
    case SYS_WRITE:
        write(frame, r[0], r[1]);
        break;
    case SYS_YIELD:
        schedule();
        break;
    case SYS_FORK:
        r[0] = process_fork();
        break;
    case SYS_EXEC:
        exec(frame, r[0], r[1]);
        break;
    case SYS_WAIT:
        if (r[1] % 4 == 0 && space_range(r[1], 4, true))
            r[0] = process_wait(r[0], r[1]);
        else
            bad_pointer(r[1]);
        break;
    case SYS_GETPID:
        r[0] = current->pid;
        break;
    case SYS_BRK:
        r[0] = brk(r[0]);
        break;
    case SYS_SLEEP:
        current->wake = ticks + r[0];
        current->state = SLEEPING;
        r[0] = 0;
        schedule();
        break;
    case SYS_TIME:
        r[0] = ticks;
        break;
    case SYS_LIMIT:
        current->limit = r[0];
        break;
    case SYS_PREEMPTED:
        r[0] = current->preempted;
        break;
    case SYS_SYNC:
        code_written();
        r[0] = 0;
        break;
#ifdef BENCH
    case SYS_NOTIFY:
        r[0] = notify();
        break;
    case SYS_EVENTS:
        r[0] = events(r[0]);
        break;
#endif
    default:
        process_kill("bad system call %d", r[7]);
    }
}
