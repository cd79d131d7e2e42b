/*
 * Exceptions, all of which come from user mode: what is behind each, and what comes of it.
 */
#include "kernel.h"

/* The lowest four bits of a fault status register. Those with bit 1 are about a page, others about a section. */
#define TRANSLATION(status) ((status) == 5 || (status) == 7)
#define PERMISSION(status) ((status) == 13 || (status) == 15)

static const char *fault_name(uint32_t status)
{
    switch (status) {
    case 1:
    case 3:
        return "not aligned";
    case 2:
        return "a breakpoint";
    case 5:
        return "not mapped, nor are its four megabytes";
    case 7:
        return "not mapped";
    case 13:
        return "no permission for the section";
    case 15:
        return "no permission for the page";
    }
    return "an unexpected fault";
}

/*
 * In the para-virtual form processes have no access to the domain of the kernel's pages, and where the other form has a
 * section for RAM and one for devices, there are pages, or nothing. It is the same to a process, and has the same names.
 */
#ifdef PV
static uint32_t as_usual(uint32_t status, uint32_t address)
{
    return address - VIRTUAL_RAM < RAM_SIZE || address - DEVICES_BASE < 2 * SECTION ? 13 : status;
}
#else
#define as_usual(status, address) (status)
#endif

void trap(unsigned kind, struct frame *frame)
{
    uint32_t status, address;
    if (FROM_KERNEL(frame) || kind == TRAP_FIQ) {
        print("minios: panic: exception %d at %x, data fault status %x, address %x\n", kind, frame->pc, DATA_STATUS,
              DATA_ADDRESS);
        machine_reset();
    }
    switch (kind) {
    case TRAP_IRQ: {
        unsigned before = ticks;
        interrupt();
        if (ticks != before)
            preempt();
        break;
    }
    case TRAP_SYSCALL:
        syscall(frame);
        break;
    case TRAP_PREFETCH:
        status = as_usual(PREFETCH_STATUS & 15, frame->pc);
        if (!(TRANSLATION(status) && space_fault(frame->pc, false)))
            process_kill("prefetch abort, %s", fault_name(status));
        break;
    case TRAP_DATA:
        status = DATA_STATUS & 15;
        address = DATA_ADDRESS;
        status = as_usual(status, address);
        /* The permission that is missing is the one to write, for all that the user has may be read. */
        if (!((TRANSLATION(status) && space_fault(address, false))
              || (PERMISSION(status) && space_fault(address, true))))
            process_kill("data abort, %s: %x", fault_name(status), address);
        break;
    case TRAP_UNDEFINED:
        if (frame->cpsr & THUMB)
            process_kill("undefined instruction in Thumb state");
        else
            process_kill("undefined instruction %x", *(uint32_t *)frame->pc);
        break;
    }
}
