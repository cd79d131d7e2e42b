/* A guest with debug information, for sessions of gdb. */

typedef unsigned int u32;

struct node {
    struct node *next;
    u32 value;
};

volatile u32 test_data[256];
static struct node nodes[8];
volatile u32 total;
volatile u32 wanted = 1;

static void semihosting(u32 operation, const void *block)
{
    register u32 r0 asm("r0") = operation;
    register const void *r1 asm("r1") = block;
    asm volatile("svc 0x123456" : "+r"(r0) : "r"(r1) : "memory", "lr");
}

void _exit(int code)
{
    u32 block[2] = {0x20026, (u32)code};
    semihosting(0x20, block);
    for (;;)
        ;
}

static struct node *build(u32 count)
{
    for (u32 i = 0; i < count; i++) {
        nodes[i].value = i * i;
        nodes[i].next = i + 1 < count ? &nodes[i + 1] : 0;
    }
    return nodes;
}

static u32 sum(const struct node *list)
{
    u32 found = 0;
    while (list) {
        found += list->value;
        list = list->next;
    }
    return found;
}

u32 twice(u32 value)
{
    return value * 2;
}

/* In a page of its own. */
__attribute__((aligned(4096))) u32 far_away(u32 value)
{
    return value + 1;
}

static void fill(u32 round)
{
    for (u32 i = 0; i < 256; i++)
        test_data[i] = far_away(i * round);
    for (u32 i = 0; i < 256; i++)
        total += test_data[i];
}

/* For Ctrl-C: it never returns. */
void loop(void)
{
    for (;;)
        total++;
}

int main(void)
{
    total = sum(build(8));
    for (u32 round = 1; round <= 300; round++)
        fill(round);
    total = twice(total);
    if (wanted == 2)
        loop();
    return total == 0;
}

__attribute__((naked)) void _start(void)
{
    asm("mov r4, #1\n\tmov r5, #2\n\tmov r6, #3\n\tmov sp, #0x100000\n\tmov lr, #0\n\tbl main\n\tbl _exit");
}
