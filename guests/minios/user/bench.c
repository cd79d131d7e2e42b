/*
 * The benchmark, which is the first process of the images minios-bench.elf and minios-pv-bench.elf: what a kernel is
 * asked for, many times each, between two lines by which somebody outside takes the time (make bench-pv).
 */
#include "minios.h"

#define PAGE 4096
#define PAGES 32 /* as many as a heap has */

static void null_calls(int times)
{
    while (times--)
        getpid();
}

/* Two processes that let each other go on. */
static void switches(int times)
{
    int child = fork();
    for (int i = 0; i < times / 2; i++)
        yield();
    if (!child)
        exit(0);
    result(child);
}

static void mappings(int times)
{
    char *heap = brk(0);
    for (; times > 0; times -= PAGES) {
        brk(heap + PAGES * PAGE);
        brk(heap);
    }
}

static void faults(int times)
{
    char *heap = brk(0);
    for (; times > 0; times -= PAGES) {
        brk(heap + PAGES * PAGE);
        for (int page = 0; page < PAGES; page++)
            *(volatile char *)(heap + page * PAGE) = 1;
        brk(heap);
    }
}

static void forks(int times)
{
    while (times--) {
        int child = fork();
        if (!child)
            exit(0);
        result(child);
    }
}

static void executions(int times)
{
    while (times--)
        result(spawn("init", 1));
}

static void lines(int times)
{
    while (times--)
        write("a line of sixty-four bytes, which is what a console has to show\n", 64);
}

/* Pages of text, of which there is one. */
static void pages(int times)
{
    static char page[PAGE];
    for (int i = 0; i < PAGE; i++)
        page[i] = i % 64 == 63 ? '\n' : 'a' + i % 64 % 26;
    while (times--)
        write(page, PAGE);
}

/* Each is an interrupt that comes when the system call is over. */
static void notifications(int times)
{
    int before = notify();
    for (int i = 1; i < times; i++)
        notify();
    int found = notify() - before;
    if (found != times)
        print("%d events of %d\n", found, times);
}

/* Each is one that the kernel sends itself, and takes where it stands. */
static void inside(int times)
{
    int found = events(times);
    if (found != times)
        print("%d events inside of %d\n", found, times);
}

static void ticks(int times)
{
    sleep(times);
}

static const struct {
    const char *name;
    void (*work)(int times);
    int times;
} parts[] = {
    {"null", null_calls, 4000000},   {"switch", switches, 200000}, {"map", mappings, 3200000}, {"fault", faults, 96000},
    {"fork", forks, 3000},           {"exec", executions, 1000},   {"console", lines, 16000},  {"pages", pages, 2000},
    {"tick", ticks, 20000},          {"event", notifications, 1000000},
    {"inside", inside, 4000000},
};

int main(int child)
{
    if (child)
        return 0;
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts[i].work(parts[i].times / 100); /* what is compiled is compiled then */
        print("begin %s %d\n", parts[i].name, parts[i].times);
        sleep(1); /* what was printed is seen at once */
        parts[i].work(parts[i].times);
        print("end %s\n", parts[i].name);
        sleep(1);
    }
    return 0;
}
