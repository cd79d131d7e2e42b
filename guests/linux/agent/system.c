#include "system.h"

#define POWER_OFF_MAGIC 0x4321fedc

long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;
    register long r5 __asm__("r5") = f;
    register long r7 __asm__("r7") = number;

    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5), "r"(r7) : "memory");
    return r0;
}

long call(long number, long a, long b, long c, long d, long e)
{
    return call6(number, a, b, c, d, e, 0);
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

int compare(const void *one, const void *other, uint32_t size)
{
    for (uint32_t at = 0; at < size; at++)
        if (((const uint8_t *)one)[at] != ((const uint8_t *)other)[at])
            return 1;
    return 0;
}

int is_same(const char *one, const char *other)
{
    return length(one) == length(other) && !compare(one, other, length(one));
}

int begins_with(const char *text, const char *prefix)
{
    return length(text) >= length(prefix) && !compare(text, prefix, length(prefix));
}

long join(char *to, uint32_t size, const char *first, const char *second, const char *third)
{
    const char *parts[] = {first, second, third};
    uint32_t at = 0;

    for (uint32_t part = 0; part < 3; part++) {
        uint32_t more = length(parts[part]);
        if (more >= size - at)
            return -ENAMETOOLONG;
        memcpy(to + at, parts[part], more);
        at += more;
    }
    to[at] = 0;
    return 0;
}

/* Without division, for which the processor has no instruction. */
char *write_decimal(char *at, uint64_t value)
{
    uint64_t place = 1;

    while (place <= value && place < 10000000000000000000ull && place * 10 <= value)
        place *= 10;
    for (;;) {
        char digit = '0';
        for (; value >= place; value -= place)
            digit++;
        *at++ = digit;
        if (place == 1)
            break;
        uint64_t next = 1;
        while (next * 10 < place)
            next *= 10;
        place = next;
    }
    *at = 0;
    return at;
}

uint32_t read_decimal(const char *text, uint32_t *value)
{
    uint64_t read = 0;
    uint32_t at = 0;

    for (; text[at] >= '0' && text[at] <= '9' && at < 11; at++)
        read = read * 10 + (uint32_t)(text[at] - '0');
    *value = (uint32_t)read;
    return read >> 32 ? 0 : at;
}

long write_all(int file, const void *data, uint32_t size)
{
    const uint8_t *from = data;

    while (size) {
        long done = call(SYS_WRITE, file, (long)from, (long)size, 0, 0);
        if (done == -EINTR || done == -EAGAIN)
            continue;
        if (done <= 0)
            return done ? done : -EIO;
        from += done;
        size -= (uint32_t)done;
    }
    return 0;
}

long read_all(int file, void *data, uint32_t size)
{
    uint32_t done = 0;

    while (done < size) {
        long got = call(SYS_READ, file, (long)data + (long)done, (long)(size - done), 0, 0);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (!got)
            break;
        done += (uint32_t)got;
    }
    return (long)done;
}

long open_file(const char *path, int flags, int mode)
{
    return call(SYS_OPEN, (long)path, flags | CLOSE_ON_EXEC, mode, 0, 0);
}

long status_at(int directory, const char *path, int flags, struct status *status)
{
    return call(SYS_STATX, directory, (long)path, flags, 0x7ff, (long)status);
}

void *allocate(uint32_t size)
{
    long memory = call(SYS_MMAP2, 0, (long)size, 3, 0x4022, -1); /* private, anonymous, without a reservation */

    return memory < 0 && memory > -4096 ? 0 : (void *)memory;
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
