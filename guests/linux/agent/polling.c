#include "polling.h"
#include "system.h"

static struct poll polled[POLLED_MOST];
static uint32_t count;

void watch_nothing(void)
{
    count = 0;
}

void watch(int file, int16_t events)
{
    if (file >= 0 && count < POLLED_MOST)
        polled[count++] = (struct poll){file, events, 0};
}

long wait_for_any(void)
{
    return call(SYS_PPOLL64, (long)polled, (long)count, 0, 0, 8);
}

int has(int file, int16_t events)
{
    for (uint32_t at = 0; at < count; at++)
        if (polled[at].fd == file && polled[at].got & (events | POLL_ERROR | POLL_HANG_UP))
            return 1;
    return 0;
}

int is_readable(int file)
{
    struct poll one = {file, POLL_IN, 0};
    int64_t at_once[2] = {0, 0};

    return call(SYS_PPOLL64, (long)&one, 1, (long)at_once, 0, 8) > 0;
}
