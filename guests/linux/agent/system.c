#include "system.h"

#define POWER_OFF_MAGIC 0x4321fedc

long call(long number, long a, long b, long c, long d, long e)
{
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = 0;
    register long r7 __asm__("r7") = number;

    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5), "r"(r7) : "memory");
    return r0;
}

/* GCC makes calls of these two by itself. */
void *memcpy(void *to, const void *from, unsigned size)
{
    for (unsigned at = 0; at < size; at++)
        ((uint8_t *)to)[at] = ((const uint8_t *)from)[at];
    return to;
}

void *memset(void *to, int value, unsigned size)
{
    for (unsigned at = 0; at < size; at++)
        ((uint8_t *)to)[at] = (uint8_t)value;
    return to;
}

uint32_t number(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint32_t length(const char *text)
{
    uint32_t size = 0;

    while (text[size])
        size++;
    return size;
}

/* Without division, for which the processor has no instruction. */
void write_decimal(char *at, uint32_t value)
{
    static const uint32_t places[] = {100, 10, 1};
    int is_leading = 1;

    for (unsigned place = 0; place < 3; place++) {
        char digit = '0';
        for (; value >= places[place]; value -= places[place])
            digit++;
        is_leading = is_leading && digit == '0' && place < 2;
        if (!is_leading)
            *at++ = digit;
    }
    *at = 0;
}

void write_all(int file, const uint8_t *data, uint32_t size)
{
    while (size) {
        long done = call(SYS_WRITE, file, (long)data, (long)size, 0, 0);
        if (done == -EINTR || done == -EAGAIN)
            continue;
        if (done <= 0)
            return;
        data += done;
        size -= (uint32_t)done;
    }
}

void close_file(int *file)
{
    if (*file >= 0)
        call(SYS_CLOSE, *file, 0, 0, 0, 0);
    *file = -1;
}

void exit_with(int status)
{
    for (;;)
        call(SYS_EXIT_GROUP, status, 0, 0, 0, 0);
}

void power_off(void)
{
    for (;;)
        call(SYS_REBOOT, (long)0xfee1dead, 672274793, POWER_OFF_MAGIC, 0, 0);
}
