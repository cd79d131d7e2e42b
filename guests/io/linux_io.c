/*
 * What busybox has no command for: accesses to a disk at random places, and a stream of TCP.
 *
 *     linux_io read|write <device> <bytes of an access> <accesses>
 *     linux_io serve <port>                          takes one connection, and counts what comes
 *     linux_io send <address> <port> <bytes>
 *     linux_io receive <address> <port>              counts what comes
 *
 * A static program for Linux (EABI) without a C library: see tools/bench_io.py. Accesses to disks bypass the cache. The
 * bytes that came are printed as eight hexadecimal digits.
 */
#include <stdint.h>

enum { SYS_EXIT = 1, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_PREAD = 180, SYS_PWRITE = 181 };
enum { SYS_SOCKET = 281, SYS_BIND, SYS_CONNECT, SYS_LISTEN, SYS_ACCEPT };
enum { RDWR = 2, DIRECT = 0200000, IPV4 = 2, STREAM = 1 };
#define BUFFER_BYTES 65536

static char buffer[BUFFER_BYTES] __attribute__((aligned(4096)));

struct address {
    uint16_t family, port;
    uint32_t address;
    uint8_t zeros[8];
};

static long call(long number, long a, long b, long c, long d, long e, long f)
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

static void finish(const char *text)
{
    long size = 0;

    while (text[size])
        size++;
    call(SYS_WRITE, 2, (long)text, size, 0, 0, 0);
    call(SYS_EXIT, 1, 0, 0, 0, 0, 0);
}

static long checked(long answer, const char *text)
{
    if (answer < 0)
        finish(text);
    return answer;
}

/* The number at the beginning of a text, whose end is left in `text`. */
static uint32_t number(const char **text)
{
    uint32_t value = 0;

    while (**text >= '0' && **text <= '9')
        value = value * 10 + (uint32_t)(*(*text)++ - '0');
    return value;
}

static void say(uint32_t value)
{
    char text[9];

    for (int place = 0; place < 8; place++)
        text[place] = "0123456789abcdef"[value >> (28 - 4 * place) & 15];
    text[8] = '\n';
    call(SYS_WRITE, 1, (long)text, sizeof text, 0, 0, 0);
}

/* Accesses to the first 64 MB, each at a multiple of its size, which is a power of two. */
static void access_disk(int writes, const char *device, uint32_t size, uint32_t times)
{
    long file = checked(call(SYS_OPEN, (long)device, RDWR | DIRECT, 0, 0, 0, 0), "no such disk\n");
    uint32_t place = 12345;

    while (times--) {
        place = place * 1664525 + 1013904223;
        uint32_t offset = (place >> 6) & ~(size - 1);
        buffer[0]++;
        if (call(writes ? SYS_PWRITE : SYS_PREAD, file, (long)buffer, (long)size, 0, (long)offset, 0) != (long)size)
            finish("the disk has failed\n");
    }
}

static void count(long socket)
{
    uint32_t total = 0;
    long got;

    while ((got = checked(call(SYS_READ, socket, (long)buffer, BUFFER_BYTES, 0, 0, 0), "the connection broke\n")) > 0)
        total += (uint32_t)got;
    say(total);
}

static long new_socket(void)
{
    return checked(call(SYS_SOCKET, IPV4, STREAM, 0, 0, 0, 0), "no socket\n");
}

static uint16_t swapped(uint32_t port)
{
    return (uint16_t)(port << 8 | port >> 8);
}

static void serve(uint32_t port)
{
    struct address here = {IPV4, swapped(port), 0, {0}};
    long listening = new_socket();

    checked(call(SYS_BIND, listening, (long)&here, sizeof here, 0, 0, 0), "the port is in use\n");
    checked(call(SYS_LISTEN, listening, 1, 0, 0, 0, 0), "cannot listen\n");
    say(port);
    count(checked(call(SYS_ACCEPT, listening, 0, 0, 0, 0, 0), "nobody came\n"));
}

static long connect(const char *text, uint32_t port)
{
    struct address there = {IPV4, swapped(port), 0, {0}};
    long socket = new_socket();

    for (int part = 0; part < 4; part++) {
        there.address |= number(&text) << 8 * part;
        text += *text == '.';
    }
    checked(call(SYS_CONNECT, socket, (long)&there, sizeof there, 0, 0, 0), "nobody is there\n");
    return socket;
}

static void send(long socket, uint32_t bytes)
{
    while (bytes) {
        uint32_t most = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;
        bytes -= (uint32_t)checked(call(SYS_WRITE, socket, (long)buffer, (long)most, 0, 0, 0), "the connection broke\n");
    }
}

static uint32_t as_number(const char *text)
{
    return number(&text);
}

static __attribute__((used)) void begin(long *stack)
{
    long words = stack[0];
    const char **argv = (const char **)(stack + 1);
    char command = words > 2 ? argv[1][0] : 0;

    if (words == 5 && (command == 'r' || command == 'w'))
        access_disk(command == 'w', argv[2], as_number(argv[3]), as_number(argv[4]));
    else if (words == 3)
        serve(as_number(argv[2]));
    else if (words == 5)
        send(connect(argv[2], as_number(argv[3])), as_number(argv[4]));
    else if (words == 4)
        count(connect(argv[2], as_number(argv[3])));
    else
        finish("linux_io: what shall it do?\n");
    call(SYS_EXIT, 0, 0, 0, 0, 0, 0);
}

__attribute__((naked)) void _start(void)
{
    __asm__ volatile("mov r0, sp\n bl begin");
}
