/*
 * The para-virtual form of the kernel, which runs in user mode on a domain of Xen (docs/para-virtualization.md): what
 * it asks the hypervisor for, and where things are. For C and for assembly.
 */
#define RAM_BASE 0x40000000
#define SHARED_INFO_PAGE 0x39004000 /* physical */
#define SHARED_INFO (VIRTUAL_RAM + RAM_SIZE) /* virtual: the page behind RAM */
#define EVENT_INTERRUPT 31
#define DISTRIBUTOR 0x03001000
#define CPU_INTERFACE 0x03002000

#define L1_KERNEL_DOMAIN (1 << 5) /* processes have no access to this domain */

/* Hypercalls: number in r12, arguments from r0 on. */
#define HYPERCALL_XEN 0xea1 /* the immediate of HVC */
#define CONSOLE_IO 18
#define SCHED_OP 29
#define EVENT_CHANNEL_OP 32
#define SET_TRAP_TABLE 48
#define MMU_UPDATE 49
#define MMUEXT_OP 50
#define IRET 51
#define SET_PERIODIC_TIMER 52
#define SWITCH_USER_ROOT 53

#define DOMAIN_SELF 0x7ff0
#define FLUSH_CODE 12
#define SET_USER_ROOT 64
#define BLOCK 1
#define SHUTDOWN 2
#define BIND_VIRQ 1
#define SEND 4
#define BIND_IPI 7
#define VIRQ_TIMER 0

/* The page on which the hypervisor says what has happened, and is told where to return to. */
#define PV_FRAME 0xffe00000
#define PV_WORDS 17 /* r0 to r14, pc, cpsr */
#define PV_STATUS 72
#define PV_ADDRESS 76
#define PV_IN_KERNEL 80
