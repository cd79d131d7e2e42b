/*
 * A tree of processes, each of which writes to the same pages. A fork() shares them copy-on-write: so a child sees
 * what its parent had written before, and neither sees what the other writes then.
 */
#include "minios.h"

#define DEPTH 3
#define PAGES 3
#define WORDS (4096 / sizeof(int))

static int memory[PAGES * WORDS];

static bool all_are(int value)
{
    for (unsigned i = 0; i < PAGES * WORDS; i += WORDS / 4)
        if (memory[i] != value)
            return false;
    return true;
}

/* The first write to the first page is that of a SWP, which needs the permission to write though it loads first. */
static void set_all(int value)
{
    int before;
    asm volatile("swp %0, %1, [%2]" : "=&r"(before) : "r"(value), "r"(memory) : "memory");
    for (unsigned i = WORDS / 4; i < PAGES * WORDS; i += WORDS / 4)
        memory[i] = value;
}

/* The process with this number, the root being 1: how many there are from it downwards, or KILLED. */
static int member(int number, int depth)
{
    int children[2], count = 1;
    if (!all_are(number / 2)) /* as the parent had it at the fork */
        return KILLED;
    set_all(number);
    if (depth < DEPTH) {
        for (int i = 0; i < 2; i++) {
            children[i] = fork();
            if (children[i] == 0)
                exit(member(2 * number + i, depth + 1));
        }
        set_all(-number); /* at once, most often before a child has begun */
        for (int i = 0; i < 2; i++)
            count += result(children[i]);
    }
    return all_are(depth < DEPTH ? -number : number) ? count : KILLED; /* as this process left it */
}

int main(void)
{
    int me = getpid(), child = fork();
    if (child == 0)
        exit(getpid() == me);
    print("family: parent and child have different identifiers: %s\n", yes(result(child) == 0));
    print("family: %d processes, each with a memory of its own\n", member(1, 0));
    return 0;
}
