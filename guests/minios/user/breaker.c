/* Breaks every rule there is, one child for each. The kernel kills the child, says why, and the rest goes on. */
#include "minios.h"

#define ACCESS(address) (*(volatile int *)(address))
#define KERNEL 0xc0010000
#define CONSOLE 0xf01f1000 /* where the kernel has it */
#define VECTORS 0xffff0000

int main(int own_text);

static void jump(uint32_t address)
{
    asm volatile("mov pc, %0" : : "r"(address));
}

static void read_null(void) { (void)ACCESS(0); }
static void write_null(void) { ACCESS(0) = 1; }
static void jump_null(void) { jump(0); }
static void read_nothing(void) { (void)ACCESS(0x00200000); }
static void read_kernel(void) { (void)ACCESS(KERNEL); }
static void write_kernel(void) { ACCESS(KERNEL) = 1; }
static void jump_kernel(void) { jump(KERNEL); }
static void read_vectors(void) { (void)ACCESS(VECTORS); }
static void jump_vectors(void) { jump(VECTORS + 8); }
static void write_device(void) { ACCESS(CONSOLE) = '!'; }
static void write_text(void) { ACCESS(main) = 0; }
static void write_own_text(void) { exec("breaker", true); }
static void misaligned(void) { asm volatile("ldr r0, [%0]" : : "r"((char *)main + 2) : "r0"); }
static void undefined(void) { asm volatile("udf #0"); }
static void mmu_off(void) { asm volatile("mcr p15, 0, %0, c1, c0, 0" : : "r"(0)); }
static void breakpoint(void) { asm volatile("bkpt #0"); }
static void bad_call(void) { system_call(99, 0, 0); }
static void bad_text(void) { write((char *)KERNEL, 16); }
static void bad_length(void) { write((char *)main, 0x100000); }
static void wrapped(void) { write((char *)main, -1); }
static void bad_name(void) { exec(0, 0); }

static void bad_status(void)
{
    int child = fork();
    if (child == 0)
        exit(0);
    wait(child, (int *)main); /* which is not to be written to */
}

static void bad_alignment(void)
{
    char status[8];
    wait(0, (int *)(((uint32_t)status & ~3) + 2));
}

static void endless(void)
{
    limit(4);
    asm volatile("1: b 1b");
}

static void block_transfer(void)
{
    register uint32_t end asm("r12") = 0x7fff0010; /* the stack's last words, and below it nothing */
    asm volatile("stmdb %0!, {r0-r11}" : : "r"(end) : "memory");
}

static int overflow(int depth)
{
    volatile int page[1024];
    page[0] = depth;
    return depth ? overflow(depth - 1) + page[0] : 0;
}

static void overflow_stack(void) { overflow(1000); }

/* Not an error: in user mode a write to the control bits of the CPSR does nothing. */
static void become_kernel(void)
{
    uint32_t cpsr;
    asm volatile("msr cpsr_c, %0" : : "r"(0xd3));
    asm volatile("mrs %0, cpsr" : "=r"(cpsr));
    exit((cpsr & 0xdf) == 0x10 ? 0 : 1);
}

static const struct {
    const char *name;
    void (*break_it)(void);
} rules[] = {
    {"reads a null pointer", read_null},
    {"writes to a null pointer", write_null},
    {"calls a null pointer", jump_null},
    {"reads where nothing is", read_nothing},
    {"reads the kernel", read_kernel},
    {"writes to the kernel", write_kernel},
    {"jumps into the kernel", jump_kernel},
    {"reads the vectors", read_vectors},
    {"jumps to the vectors", jump_vectors},
    {"writes to a device", write_device},
    {"writes to the text that it shares since a fork", write_text},
    {"writes to a text of its own", write_own_text},
    {"reads a word that is not aligned", misaligned},
    {"has an undefined instruction", undefined},
    {"switches the MMU off", mmu_off},
    {"has a breakpoint", breakpoint},
    {"makes a system call that is not there", bad_call},
    {"has the kernel print the kernel", bad_text},
    {"has it print more than is there", bad_length},
    {"has it print beyond the last address", wrapped},
    {"has it exec a null pointer", bad_name},
    {"has it write to the text", bad_status},
    {"has it write a word that is not aligned", bad_alignment},
    {"never ends", endless},
    {"stores half below its stack", block_transfer},
    {"overflows its stack", overflow_stack},
};

int main(int own_text)
{
    if (own_text)
        write_text();

    int killed = 0;
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++) {
        print("breaker: one %s\n", rules[i].name);
        int child = fork();
        if (child == 0) {
            rules[i].break_it();
            exit(0);
        }
        killed += result(child) == KILLED;
    }
    print("breaker: %d of %d killed\n", killed, sizeof rules / sizeof *rules);

    int child = fork();
    if (child == 0)
        become_kernel();
    print("breaker: one makes itself the kernel, in vain: %s\n", yes(result(child) == 0));
    return 0;
}
