/*
 * A program for Linux that shows what it is given, for tests: each argument says what to do next.
 *
 *     say TEXT     a line to standard output        complain TEXT   a line to standard error
 *     copy         standard input to output         file PATH       the file's content to standard output
 *     variable N   the environment variable N       write PATH TEXT a file
 *     directory    the working directory            owner           user and group
 *     kill N       send itself signal N             wait            for any signal, for ever
 *     fork         a child that exits with 7        status N        exit with N
 *     terminal     whether its streams are one      random          8 bytes of random numbers
 *     compute N    N million turns of a loop
 *
 * It is static and has no C library.
 */
#include <stdint.h>

enum {
    SYS_EXIT_GROUP = 248, SYS_FORK = 2, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_CLOSE = 6, SYS_GETPID = 20,
    SYS_PAUSE = 29, SYS_KILL = 37, SYS_IOCTL = 54, SYS_WAIT4 = 114, SYS_GETCWD = 183, SYS_GETUID = 199, SYS_GETGID = 200,
    SYS_GETRANDOM = 384,
};
enum { CREATE = 01101, GET_WINDOW = 0x5413 };

static char buffer[65536];

static long call(long number, long a, long b, long c, long d)
{
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r7 __asm__("r7") = number;

    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r3), "r"(r7) : "memory");
    return r0;
}

static uint32_t length(const char *text)
{
    uint32_t size = 0;

    while (text[size])
        size++;
    return size;
}

static int is_same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static void print(int stream, const char *text)
{
    call(SYS_WRITE, stream, (long)text, (long)length(text), 0);
    call(SYS_WRITE, stream, (long)"\n", 1, 0);
}

static void print_number(uint32_t value)
{
    static char text[9];

    for (int place = 0; place < 8; place++)
        text[place] = "0123456789abcdef"[value >> (28 - 4 * place) & 15];
    print(1, text);
}

static uint32_t number(const char *text)
{
    uint32_t value = 0;

    while (*text >= '0' && *text <= '9')
        value = value * 10 + (uint32_t)(*text++ - '0');
    return value;
}

static void copy(int file)
{
    long got;

    while ((got = call(SYS_READ, file, (long)buffer, sizeof buffer, 0)) > 0)
        for (long at = 0, done; at < got; at += done)
            if ((done = call(SYS_WRITE, 1, (long)(buffer + at), got - at, 0)) <= 0)
                call(SYS_EXIT_GROUP, 99, 0, 0, 0);
}

static int use_file(const char *path, long flags)
{
    long file = call(SYS_OPEN, (long)path, flags, 0644, 0);

    if (file < 0) {
        print(2, path);
        call(SYS_EXIT_GROUP, 98, 0, 0, 0);
    }
    return (int)file;
}

/* The value of a variable of the environment, or a dash. */
static const char *variable(char **environment, const char *name)
{
    uint32_t size = length(name);

    for (; *environment; environment++) {
        uint32_t at = 0;
        while (at < size && (*environment)[at] == name[at])
            at++;
        if (at == size && (*environment)[at] == '=')
            return *environment + size + 1;
    }
    return "-";
}

static void compute(uint32_t millions)
{
    for (uint32_t left = millions * 1000000; left; left--)
        __asm__ volatile("");
}

static void make_child(void)
{
    int status = 0;
    long child = call(SYS_FORK, 0, 0, 0, 0);

    if (!child)
        call(SYS_EXIT_GROUP, 7, 0, 0, 0);
    call(SYS_WAIT4, child, (long)&status, 0, 0);
    print_number((uint32_t)status);
}

__attribute__((used)) void begin(long *stack)
{
    char **argument = (char **)(stack + 1), **environment = argument + stack[0] + 1;
    uint16_t window[4];

    while (*++argument) {
        const char *word = *argument;
        if (is_same(word, "say"))
            print(1, *++argument);
        else if (is_same(word, "complain"))
            print(2, *++argument);
        else if (is_same(word, "copy"))
            copy(0);
        else if (is_same(word, "file"))
            copy(use_file(*++argument, 0));
        else if (is_same(word, "write")) {
            int file = use_file(*++argument, CREATE);
            print(file, *++argument);
            call(SYS_CLOSE, file, 0, 0, 0);
        } else if (is_same(word, "variable"))
            print(1, variable(environment, *++argument));
        else if (is_same(word, "directory")) {
            call(SYS_GETCWD, (long)buffer, sizeof buffer, 0, 0);
            print(1, buffer);
        } else if (is_same(word, "owner")) {
            print_number((uint32_t)call(SYS_GETUID, 0, 0, 0, 0));
            print_number((uint32_t)call(SYS_GETGID, 0, 0, 0, 0));
        } else if (is_same(word, "kill"))
            call(SYS_KILL, call(SYS_GETPID, 0, 0, 0, 0), (long)number(*++argument), 0, 0);
        else if (is_same(word, "wait"))
            for (;;)
                call(SYS_PAUSE, 0, 0, 0, 0);
        else if (is_same(word, "compute"))
            compute(number(*++argument));
        else if (is_same(word, "fork"))
            make_child();
        else if (is_same(word, "status"))
            call(SYS_EXIT_GROUP, (long)number(*++argument), 0, 0, 0);
        else if (is_same(word, "terminal")) {
            int is_one = call(SYS_IOCTL, 1, GET_WINDOW, (long)window, 0) >= 0;
            print_number(is_one ? (uint32_t)window[0] << 16 | window[1] : 0);
        } else if (is_same(word, "random")) {
            uint32_t got[2] = {0, 0};
            call(SYS_GETRANDOM, (long)got, sizeof got, 0, 0);
            print_number(got[0]);
            print_number(got[1]);
        } else {
            print(2, word);
            call(SYS_EXIT_GROUP, 97, 0, 0, 0);
        }
    }
    call(SYS_EXIT_GROUP, 0, 0, 0, 0);
}

__attribute__((naked, noreturn)) void _start(void)
{
    __asm__("mov r0, sp\n\tbl begin");
}
