/* The heap: grown until there is no more, filled, checked, given back, and zero when it comes again. */
#include "minios.h"

#define PAGE 4096
#define WORDS (PAGE / sizeof(int))

static int untouched[8 * WORDS]; /* zero from the start, and no frames are used for it until then */
static int initialised[WORDS + 1] = {1, 2, 3, [WORDS] = 4}; /* data from the file, on two pages */

/* Some words of each page, the first and the last among them. */
static unsigned sum(const int *from, const char *end)
{
    unsigned total = 0;
    for (; (char *)from < end; from += WORDS)
        total += from[0] + from[500] + from[WORDS - 1];
    return total;
}

/* Eight words to addresses on both sides of a border between pages that were not touched; and the same words back. */
static bool block_transfers(char *border)
{
    register char *at asm("r10") = border - 16;
    int total;
    asm volatile("mov r0, #1; mov r1, #2; mov r2, #3; mov r3, #4; mov r4, #5; mov r5, #6; mov r6, #7; mov r8, #8\n"
                 "stmia %0!, {r0-r6, r8}\n"
                 "mov r0, #0; mov r8, #0\n"
                 "ldmdb %0!, {r0-r6, r8}\n"
                 "add %1, r0, r8, lsl #4"
                 : "+r"(at), "=r"(total)
                 :
                 : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "memory");
    return at == border - 16 && total == 1 + (8 << 4) && ((int *)border)[-1] == 4 && ((int *)border)[0] == 5;
}

int main(void)
{
    print("memory: data from the file: %d\n", initialised[0] + initialised[1] + initialised[2] + initialised[WORDS]);
    print("memory: sum of untouched data: %d\n", sum(untouched, (char *)untouched + sizeof untouched));

    char *start = brk(0), *end = start;
    while (brk(end + PAGE) != NO_MORE)
        end += PAGE;
    print("memory: a heap of %d pages\n", (end - start) / PAGE);

    unsigned expected = 0;
    int value = 1;
    for (int *page = (int *)start; (char *)page < end; page += WORDS, value += 7) {
        page[0] = value;
        page[500] = -3 * value;
        page[WORDS - 1] = value << 8;
        expected += value - 3 * value + (value << 8);
    }
    print("memory: it keeps what is written: %s\n", yes(sum((int *)start, end) == expected));

    char *middle = start + (end - start) / 2;
    bool shrunk = brk(middle) == middle && brk(end) == end;
    print("memory: what was given back is zero again: %s\n", yes(shrunk && sum((int *)middle, end) == 0));
    print("memory: and the rest is not: %s\n", yes(sum((int *)start, middle) != 0));

    /* The kernel writes to a page of this process that was never touched, and reads across the border of two. */
    int child = fork();
    if (child == 0)
        exit(17);
    brk(start);
    brk(end);
    print("memory: block transfers across two new pages: %s\n", yes(block_transfers(start + 4 * PAGE)));
    int *status = (int *)(end - PAGE);
    print("memory: the kernel brings in pages too: %s\n", yes(wait(child, status) == child && *status == 17));
    memcpy(start + PAGE - 8, "memory: across two pages\n", 25);
    write(start + PAGE - 8, 25);
    return 0;
}
