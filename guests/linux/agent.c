/*
 * The first process of the Linux guest that runs programs for dbt: it does what it is asked at a port of the virtio
 * console, such as /dev/vport0p0, and reports there what becomes of it.
 *
 * Both directions carry frames: a kind (1 byte), a stream (1 byte), the number of a session (2 bytes), the size of what
 * follows (4 bytes, at most FRAME_MOST), and that. Numbers are little-endian. dbt/linux/protocol.py is the other end.
 *
 * A session is one program. PREPARE brings a piece of its request, a list of items: a tag (1 byte), a size (4 bytes)
 * and a value. START forks a process that carries the items out in their order, and executes the program. An item that
 * cannot be carried out ends the session with FAILED: the error number, and the item's tag and place in the list. FINISH
 * lets the guest end when there is no session any more.
 *
 * A static program without a C library.
 */
#include <stdint.h>

enum { PREPARE = 1, START, INPUT, SIGNAL, RESIZE, FINISH };             /* frames from the host */
enum { READY = 1, STARTED, OUTPUT, TAKEN, ENDED, FAILED };              /* frames to the host */

enum { /* of the values, all texts end with a zero byte */
    ITEM_ARGUMENT = 'a',    /* one of argv */
    ITEM_VARIABLE = 'e',    /* one of the environment, NAME=VALUE */
    ITEM_PROGRAM = 'p',     /* the path that is executed */
    ITEM_DIRECTORY = 'd',   /* the working directory */
    ITEM_TERMINAL = 't',    /* rows and columns, 2 bytes each: the streams are a terminal */
    ITEM_MOUNT = 'm',       /* flags, 4 bytes; source, target, type and options */
    ITEM_MAKE = 'k',        /* a directory to be made, with those above it; mode 0755 */
    ITEM_FILE = 'f',        /* mode, 4 bytes; path, and the content */
    ITEM_LINK = 'l',        /* target and path of a symbolic link */
    ITEM_ROOT = 'r',        /* the new root directory */
    ITEM_GROUPS = 'g',      /* the supplementary groups, 4 bytes each */
    ITEM_OWNER = 'o',       /* user and group, 4 bytes each */
    ITEM_HOST_NAME = 'h',
    ITEM_TIME = 'c',        /* seconds since 1970 and nanoseconds, 4 bytes each */
    ITEM_ENTROPY = 's',     /* random bytes: the kernel's generator starts again from them */
    ITEM_NAMESPACES = 'n',  /* flags of unshare(2), 4 bytes */
    ITEM_MASK = 'u',        /* the file mode creation mask, 4 bytes */
};

enum {
    SYS_FORK = 2, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_CLOSE = 6, SYS_EXECVE = 11, SYS_CHDIR = 12,
    SYS_MOUNT = 21, SYS_KILL = 37, SYS_MKDIR = 39, SYS_IOCTL = 54, SYS_UMASK = 60, SYS_CHROOT = 61, SYS_DUP2 = 63,
    SYS_SETSID = 66, SYS_SETHOSTNAME = 74, SYS_SYMLINK = 83, SYS_REBOOT = 88, SYS_MUNMAP = 91, SYS_WAIT4 = 114,
    SYS_RT_SIGPROCMASK = 175, SYS_MMAP2 = 192, SYS_SETGROUPS = 206, SYS_SETUID = 213, SYS_SETGID = 214, SYS_FCNTL = 221,
    SYS_EXIT_GROUP = 248, SYS_SOCKET = 281, SYS_UNSHARE = 337, SYS_SIGNALFD4 = 355, SYS_PIPE2 = 359,
    SYS_CLOCK_SETTIME64 = 404, SYS_CLOCK_NANOSLEEP64 = 407, SYS_PPOLL64 = 414,
};
enum { READ_ONLY = 0, WRITE_ONLY = 1, READ_WRITE = 2, CREATE = 0100, TRUNCATE = 01000, NO_TERMINAL = 0400 };
enum { NONBLOCK = 04000, CLOSE_ON_EXEC = 02000000, SET_FLAGS = 4 };
enum { POLL_IN = 1, POLL_OUT = 4, POLL_ERROR = 8, POLL_HANG_UP = 16 };
enum { MONOTONIC = 1, SIGCHLD = 17, SIG_BLOCK = 0, SIG_SETMASK = 2, WAIT_NO_HANG = 1 };
enum { EINTR = 4, EIO = 5, EAGAIN = 11, EINVAL = 22, EEXIST = 17, ENOMEM = 12, E2BIG = 7, ENOENT = 2 };
enum { GET_PTY_NUMBER = 0x80045430, UNLOCK_PTY = 0x40045431, SET_WINDOW = 0x5414, SET_CONTROLLING = 0x540e };
enum { ADD_ENTROPY = 0x40085203, RESEED = 0x5207, SET_INTERFACE_FLAGS = 0x8914 };
#define POWER_OFF_MAGIC 0x4321fedc

#define SESSIONS 64
#define FRAME_MOST 32768
#define REQUEST_MOST (2u << 20)
#define INPUT_MOST 65536     /* what the host sends of a session's input before some of it is taken */
#define STRINGS_MOST 65536   /* arguments and variables of a program, together */

struct header {
    uint8_t kind, stream;
    uint16_t session;
    uint32_t size;
};

struct session {
    int used, pid;           /* pid is 0 until the program is started */
    int input, output[2];    /* ends of pipes, or -1; with a terminal, all of them are its other side */
    int is_terminal, input_ended;
    uint32_t request_bytes, pending_bytes;
    uint8_t *request, *pending;
};

struct poll {
    int fd;
    int16_t events, got;
};

static struct session sessions[SESSIONS];
static struct poll polled[2 + 3 * SESSIONS];
static uint8_t inbox[sizeof(struct header) + FRAME_MOST];
static uint32_t inbox_bytes;
static struct {
    struct header header;
    uint8_t data[FRAME_MOST];
} outbox;
static char *strings[STRINGS_MOST];
static int port, children;
static int is_last;  /* The guest ends when there is no session any more. */

static long call(long number, long a, long b, long c, long d, long e)
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

/* GCC makes calls of these two by itself. This memcpy goes upwards, so it may move bytes down within a buffer. */
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

static uint32_t number(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t length(const char *text)
{
    uint32_t size = 0;

    while (text[size])
        size++;
    return size;
}

static void power_off(void)
{
    call(SYS_REBOOT, (long)0xfee1dead, 672274793, POWER_OFF_MAGIC, 0, 0);
}

/* -- to the host ----------------------------------------------------------------------------- */

static void write_all(int file, const uint8_t *data, uint32_t size)
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

/* Send a frame, whose value is in the outbox. */
static void send(uint8_t kind, uint8_t stream, uint32_t session, uint32_t size)
{
    outbox.header = (struct header){kind, stream, (uint16_t)session, size};
    write_all(port, (const uint8_t *)&outbox, sizeof outbox.header + size);
}

static void send_number(uint8_t kind, uint32_t session, uint32_t value)
{
    memcpy(outbox.data, &value, sizeof value);
    send(kind, 0, session, sizeof value);
}

/* -- a session's process --------------------------------------------------------------------- */

/* What went wrong: an error number, the tag of the item and its place in the list. */
struct failure {
    int32_t error;
    uint32_t tag, place;
};

static long make_directories(char *path)
{
    long answer = 0;

    for (char *at = path + 1;; at++) {
        char here = *at;
        if (here && here != '/')
            continue;
        *at = 0;
        answer = call(SYS_MKDIR, (long)path, 0755, 0, 0, 0);
        *at = here;
        if (!here)
            return answer == -EEXIST ? 0 : answer;
    }
}

static long write_file(char *path, uint32_t mode, const uint8_t *content, uint32_t size)
{
    long file = call(SYS_OPEN, (long)path, WRITE_ONLY | CREATE | TRUNCATE | CLOSE_ON_EXEC, (long)mode, 0, 0);

    if (file < 0)
        return file;
    write_all((int)file, content, size);
    return call(SYS_CLOSE, file, 0, 0, 0, 0);
}

static long add_entropy(const uint8_t *data, uint32_t size)
{
    static struct {
        int32_t bits, bytes;
        uint8_t data[512];
    } pool;
    long file = call(SYS_OPEN, (long)"/dev/urandom", READ_WRITE | CLOSE_ON_EXEC, 0, 0, 0), answer;

    if (file < 0)
        return file;
    if (size > sizeof pool.data)
        return -EINVAL;
    memcpy(pool.data, data, size);
    pool.bytes = (int32_t)size;
    pool.bits = pool.bytes * 8;
    answer = call(SYS_IOCTL, file, ADD_ENTROPY, (long)&pool, 0, 0);
    if (answer >= 0)
        answer = call(SYS_IOCTL, file, RESEED, 0, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer;
}

/* The text behind the one at `text`. */
static char *next_text(char *text)
{
    return text + length(text) + 1;
}

static long mount_at(uint32_t flags, char *source)
{
    char *target = next_text(source), *type = next_text(target);

    return call(SYS_MOUNT, (long)source, (long)target, (long)type, (long)flags, (long)next_text(type));
}

/* Carry an item out. Returns 0 or more, or an error number. */
static long carry_out(uint8_t tag, uint8_t *value, uint32_t size)
{
    char *text = (char *)value, *next;
    int64_t time[2];
    long answer;

    switch (tag) {
    case ITEM_DIRECTORY:
        return call(SYS_CHDIR, (long)text, 0, 0, 0, 0);
    case ITEM_MOUNT:
        return mount_at(number(value), text + 4);
    case ITEM_MAKE:
        return make_directories(text);
    case ITEM_FILE:
        next = next_text(text + 4);
        return write_file(text + 4, number(value), (uint8_t *)next, size - (uint32_t)(next - text));
    case ITEM_LINK:
        return call(SYS_SYMLINK, (long)text, (long)next_text(text), 0, 0, 0);
    case ITEM_ROOT:
        answer = call(SYS_CHROOT, (long)text, 0, 0, 0, 0);
        return answer < 0 ? answer : call(SYS_CHDIR, (long)"/", 0, 0, 0, 0);
    case ITEM_GROUPS:
        return call(SYS_SETGROUPS, (long)(size / 4), (long)value, 0, 0, 0);
    case ITEM_OWNER:
        answer = call(SYS_SETGID, (long)number(value + 4), 0, 0, 0, 0);
        return answer < 0 ? answer : call(SYS_SETUID, (long)number(value), 0, 0, 0, 0);
    case ITEM_HOST_NAME:
        return call(SYS_SETHOSTNAME, (long)text, (long)length(text), 0, 0, 0);
    case ITEM_TIME:
        time[0] = number(value);
        time[1] = number(value + 4);
        return call(SYS_CLOCK_SETTIME64, 0, (long)time, 0, 0, 0);
    case ITEM_ENTROPY:
        return add_entropy(value, size);
    case ITEM_NAMESPACES:
        return call(SYS_UNSHARE, (long)number(value), 0, 0, 0, 0);
    case ITEM_MASK:
        return call(SYS_UMASK, (long)number(value), 0, 0, 0, 0);
    case ITEM_ARGUMENT:
    case ITEM_VARIABLE:
    case ITEM_PROGRAM:
    case ITEM_TERMINAL:
        return 0;  /* They are read where they are needed. */
    default:
        return -EINVAL;
    }
}

/* The item at `at` in a request. Its value is at `*value`. Returns where the next item is, or 0 at the end. */
static uint32_t item_at(const struct session *one, uint32_t at, uint8_t *tag, uint8_t **value, uint32_t *size)
{
    if (one->request_bytes - at < 5)
        return 0;
    *tag = one->request[at];
    *size = number(one->request + at + 1);
    *value = one->request + at + 5;
    return *size <= one->request_bytes - at - 5 ? at + 5 + *size : 0;
}

/* The value of the first item with this tag, or 0. */
static uint8_t *find_item(const struct session *one, uint8_t wanted)
{
    uint8_t tag, *value;
    uint32_t size;

    for (uint32_t at = 0, next; (next = item_at(one, at, &tag, &value, &size)); at = next)
        if (tag == wanted)
            return value;
    return 0;
}

/* Collect the values with this tag from `from` on. Returns the place behind the zero that ends them, 0 without room. */
static uint32_t collect(const struct session *one, uint8_t wanted, uint32_t from)
{
    uint8_t tag, *value;
    uint32_t size;

    for (uint32_t at = 0, next; (next = item_at(one, at, &tag, &value, &size)); at = next)
        if (tag == wanted) {
            if (from >= STRINGS_MOST - 2)
                return 0;
            strings[from++] = (char *)value;
        }
    strings[from] = 0;
    return from + 1;
}

static void fail(int report, long error, uint32_t tag, uint32_t place)
{
    struct failure found = {(int32_t)-error, tag, place};

    call(SYS_WRITE, report, (long)&found, sizeof found, 0, 0);
    call(SYS_EXIT_GROUP, 127, 0, 0, 0, 0);
}

/* The forked process: carry out the request and execute the program, or tell `report` why that is not possible. */
static void become(const struct session *one, const int streams[3], int report)
{
    uint8_t tag, *value;
    uint32_t size, place = 0, variables;
    uint64_t none = 0;
    char *program = (char *)find_item(one, ITEM_PROGRAM);

    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (long)&none, 0, 8, 0);
    call(SYS_SETSID, 0, 0, 0, 0, 0);
    if (one->is_terminal)
        call(SYS_IOCTL, streams[0], SET_CONTROLLING, 0, 0, 0);
    for (int stream = 0; stream < 3; stream++)
        call(SYS_DUP2, streams[stream], stream, 0, 0, 0);
    for (uint32_t at = 0, next; (next = item_at(one, at, &tag, &value, &size)); at = next, place++) {
        long answer = carry_out(tag, value, size);
        if (answer < 0)
            fail(report, answer, tag, place);
    }
    variables = collect(one, ITEM_ARGUMENT, 0);
    if (!program || !collect(one, ITEM_VARIABLE, variables))
        fail(report, program ? -E2BIG : -EINVAL, ITEM_PROGRAM, place);
    long answer = call(SYS_EXECVE, (long)program, (long)strings, (long)(strings + variables), 0, 0);
    fail(report, answer, ITEM_PROGRAM, place);
}

/* -- sessions -------------------------------------------------------------------------------- */

static void close_file(int *file)
{
    if (*file >= 0)
        call(SYS_CLOSE, *file, 0, 0, 0, 0);
    *file = -1;
}

static void end_session(struct session *one)
{
    close_file(&one->input);
    for (int stream = 0; stream < 2; stream++)
        if (one->output[stream] != one->input)
            close_file(&one->output[stream]);
    call(SYS_MUNMAP, (long)one->request, REQUEST_MOST + INPUT_MOST, 0, 0, 0);
    one->used = 0;
}

static void set_window(int file, const uint8_t *value)
{
    uint16_t window[4] = {(uint16_t)(value[0] | value[1] << 8), (uint16_t)(value[2] | value[3] << 8), 0, 0};

    call(SYS_IOCTL, file, SET_WINDOW, (long)window, 0, 0);
}

/* Write a number below 1000, without division, for which the processor has no instruction. */
static void write_decimal(char *at, uint32_t value)
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

/* Open a terminal: `*ours` is the side of who shows it, and `*theirs` the program's. */
static long open_terminal(int *ours, int *theirs, const uint8_t *size)
{
    static char path[] = "/dev/pts/000";
    uint32_t which = 0, unlocked = 0;

    *ours = (int)call(SYS_OPEN, (long)"/dev/ptmx", READ_WRITE | NO_TERMINAL | CLOSE_ON_EXEC, 0, 0, 0);
    if (*ours < 0)
        return *ours;
    call(SYS_IOCTL, *ours, UNLOCK_PTY, (long)&unlocked, 0, 0);
    call(SYS_IOCTL, *ours, GET_PTY_NUMBER, (long)&which, 0, 0);
    write_decimal(path + 9, which);
    *theirs = (int)call(SYS_OPEN, (long)path, READ_WRITE | NO_TERMINAL | CLOSE_ON_EXEC, 0, 0, 0);
    if (*theirs >= 0)
        set_window(*ours, size);
    return *theirs;
}

/* Make the streams of a session. `streams` are the program's. */
static long open_streams(struct session *one, int streams[3])
{
    uint8_t *size = find_item(one, ITEM_TERMINAL);
    int ends[3][2];
    long answer = 0;

    one->is_terminal = size != 0;
    if (size) {
        answer = open_terminal(&one->input, &streams[0], size);
        streams[1] = streams[2] = streams[0];
        one->output[0] = one->input;
        return answer;
    }
    for (int stream = 0; stream < 3 && answer >= 0; stream++)
        answer = call(SYS_PIPE2, (long)ends[stream], CLOSE_ON_EXEC, 0, 0, 0);
    if (answer < 0)
        return answer;
    one->input = ends[0][1];
    streams[0] = ends[0][0];
    for (int stream = 1; stream < 3; stream++) {
        one->output[stream - 1] = ends[stream][0];
        streams[stream] = ends[stream][1];
    }
    return answer;
}

static void start(uint32_t which)
{
    struct session *one = &sessions[which];
    struct failure found = {0, ITEM_PROGRAM, 0};
    int streams[3] = {-1, -1, -1}, report[2] = {-1, -1};
    long answer = open_streams(one, streams);

    if (answer >= 0)
        answer = call(SYS_PIPE2, (long)report, CLOSE_ON_EXEC, 0, 0, 0);
    if (answer >= 0)
        answer = one->pid = (int)call(SYS_FORK, 0, 0, 0, 0, 0);
    if (answer == 0)
        become(one, streams, report[1]);
    for (int stream = 0; stream < (one->is_terminal ? 1 : 3); stream++)
        close_file(&streams[stream]);
    close_file(&report[1]);
    if (answer > 0) {  /* Until the program is executed, or that has failed: */
        long got = call(SYS_READ, report[0], (long)&found, sizeof found, 0, 0);
        if (got == 0) {
            call(SYS_FCNTL, one->input, SET_FLAGS, NONBLOCK | READ_WRITE, 0, 0);
            send_number(STARTED, which, (uint32_t)one->pid);
        }
    } else {
        found.error = (int32_t)-answer;
    }
    close_file(&report[0]);
    if (found.error) {
        memcpy(outbox.data, &found, sizeof found);
        send(FAILED, 0, which, sizeof found);
        end_session(one);
    }
}

/* Send what the program has written to a stream. Returns 0 if there is nothing now, and closes it at its end. */
static int relay(uint32_t which, int stream)
{
    struct session *one = &sessions[which];
    long got = call(SYS_READ, one->output[stream], (long)outbox.data, FRAME_MOST, 0, 0);

    if (got > 0) {
        send(OUTPUT, (uint8_t)(stream + 1), which, (uint32_t)got);
        return 1;
    }
    if (got == -EAGAIN || got == -EINTR)
        return 0;
    if (one->is_terminal)  /* EIO: nobody has its other side open. */
        one->input = -1;
    close_file(&one->output[stream]);
    return 0;
}

/* Give the program what has come of its input, as far as it takes it now. */
static void feed(uint32_t which)
{
    struct session *one = &sessions[which];

    if (one->pending_bytes) {
        long done = call(SYS_WRITE, one->input, (long)one->pending, (long)one->pending_bytes, 0, 0);
        if (done == -EAGAIN || done == -EINTR)
            return;
        if (done < 0) {  /* It reads no more: the rest is lost, as in a broken pipe. */
            done = one->pending_bytes;
            one->input_ended = 1;
        }
        one->pending_bytes -= (uint32_t)done;
        memcpy(one->pending, one->pending + done, one->pending_bytes);
        send_number(TAKEN, which, (uint32_t)done);
    }
    if (!one->pending_bytes && one->input_ended && !one->is_terminal)
        close_file(&one->input);
}

static void bury(void)
{
    int status;

    for (long pid; (pid = call(SYS_WAIT4, -1, (long)&status, WAIT_NO_HANG, 0, 0)) > 0;)
        for (uint32_t which = 0; which < SESSIONS; which++) {
            struct session *one = &sessions[which];
            if (!one->used || one->pid != pid)
                continue;
            for (int stream = 0; stream < 2; stream++)
                if (one->output[stream] >= 0) {
                    call(SYS_FCNTL, one->output[stream], SET_FLAGS, NONBLOCK, 0, 0);
                    while (relay(which, stream))
                        ;
                }
            send_number(ENDED, which, (uint32_t)status);
            end_session(one);
        }
}

static void prepare(uint32_t which, const uint8_t *data, uint32_t size)
{
    struct session *one = &sessions[which];

    if (!one->used) {
        long memory = call(SYS_MMAP2, 0, REQUEST_MOST + INPUT_MOST, 3, 0x22, -1);
        if (memory < 0 && memory > -4096)
            return;
        *one = (struct session){.used = 1, .input = -1, .output = {-1, -1}};
        one->request = (uint8_t *)memory;
        one->pending = one->request + REQUEST_MOST;
    }
    if (size <= REQUEST_MOST - one->request_bytes) {
        memcpy(one->request + one->request_bytes, data, size);
        one->request_bytes += size;
    }
}

static void obey(const struct header *frame, const uint8_t *data)
{
    uint32_t which = frame->session;
    struct session *one = &sessions[which];

    if (frame->kind == FINISH)
        is_last = 1;
    if (which >= SESSIONS)
        return;
    if (frame->kind == PREPARE) {
        prepare(which, data, frame->size);
    } else if (!one->used) {
        return;  /* It has ended meanwhile. */
    } else if (frame->kind == START && !one->pid) {
        start(which);
    } else if (frame->kind == INPUT) {
        if (!frame->size)
            one->input_ended = 1;
        else if (one->input < 0 || one->input_ended)
            send_number(TAKEN, which, frame->size);
        else if (frame->size <= INPUT_MOST - one->pending_bytes) {
            memcpy(one->pending + one->pending_bytes, data, frame->size);
            one->pending_bytes += frame->size;
        }
        if (one->input >= 0)
            feed(which);
    } else if (frame->kind == SIGNAL && one->pid && frame->size == 4) {
        call(SYS_KILL, -one->pid, (long)number(data), 0, 0, 0);
    } else if (frame->kind == RESIZE && one->is_terminal && one->input >= 0 && frame->size == 4) {
        set_window(one->input, data);
    }
}

static void receive(void)
{
    long got = call(SYS_READ, port, (long)(inbox + inbox_bytes), (long)(sizeof inbox - inbox_bytes), 0, 0);
    uint32_t at = 0;

    if (got == -EINTR || got == -EAGAIN)
        return;
    if (got <= 0)
        power_off();
    inbox_bytes += (uint32_t)got;
    while (inbox_bytes - at >= sizeof(struct header)) {
        struct header frame;
        memcpy(&frame, inbox + at, sizeof frame);
        if (frame.size > FRAME_MOST)
            power_off();
        if (inbox_bytes - at - sizeof frame < frame.size)
            break;
        obey(&frame, inbox + at + sizeof frame);
        at += sizeof frame + frame.size;
    }
    inbox_bytes -= at;
    memcpy(inbox, inbox + at, inbox_bytes);
}

static uint32_t watch(uint32_t count, int file, int16_t events)
{
    if (file >= 0)
        polled[count++] = (struct poll){file, events, 0};
    return count;
}

static int has(uint32_t count, int file, int16_t events)
{
    for (uint32_t at = 0; at < count; at++)
        if (polled[at].fd == file && polled[at].got & (events | POLL_ERROR | POLL_HANG_UP))
            return 1;
    return 0;
}

static __attribute__((noreturn)) void serve(void)
{
    for (;;) {
        uint32_t count = watch(watch(0, port, POLL_IN), children, POLL_IN), used = 0;
        for (uint32_t which = 0; which < SESSIONS; which++) {
            struct session *one = &sessions[which];
            used += (uint32_t)one->used;
            if (!one->used || !one->pid)
                continue;
            if (one->pending_bytes)
                count = watch(count, one->input, POLL_OUT);
            for (int stream = 0; stream < 2; stream++)
                count = watch(count, one->output[stream], POLL_IN);
        }
        if (is_last && !used)
            power_off();
        if (call(SYS_PPOLL64, (long)polled, (long)count, 0, 0, 8) < 0)
            continue;
        for (uint32_t which = 0; which < SESSIONS; which++) {
            struct session *one = &sessions[which];
            if (!one->used || !one->pid)
                continue;
            for (int stream = 0; stream < 2; stream++)
                if (one->output[stream] >= 0 && has(count, one->output[stream], POLL_IN))
                    relay(which, stream);
            if (one->pending_bytes && one->input >= 0 && has(count, one->input, POLL_OUT))
                feed(which);
        }
        if (has(count, children, POLL_IN)) {
            uint8_t which[128];  /* struct signalfd_siginfo; several signals may have become one */
            call(SYS_READ, children, (long)which, sizeof which, 0, 0);
            bury();
        }
        if (has(count, port, POLL_IN))
            receive();
    }
}

/* -- the first process ----------------------------------------------------------------------- */

static void mount_system(const char *type, const char *path)
{
    call(SYS_MKDIR, (long)path, 0755, 0, 0, 0);
    call(SYS_MOUNT, (long)type, (long)path, (long)type, 0, (long)"");
}

/* Let the guest reach itself by 127.0.0.1. */
static void raise_loopback(void)
{
    struct {
        char name[16];
        int16_t flags;
        uint8_t rest[14];
    } request = {"lo", 0x41, {0}};  /* IFF_UP and IFF_RUNNING */
    long file = call(SYS_SOCKET, 2, 2 | CLOSE_ON_EXEC, 0, 0, 0);

    call(SYS_IOCTL, file, SET_INTERFACE_FLAGS, (long)&request, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
}

/* The kernel makes the port a moment after it has found the console, and names it after the number of that device. */
static int open_port(void)
{
    static char path[] = "/dev/vport0p0";
    int64_t pause[2] = {0, 10000000};

    for (int tries = 0; tries < 1000; tries++) {
        for (path[10] = '0'; path[10] <= '9'; path[10]++) {
            long file = call(SYS_OPEN, (long)path, READ_WRITE | CLOSE_ON_EXEC, 0, 0, 0);
            if (file >= 0)
                return (int)file;
        }
        call(SYS_CLOCK_NANOSLEEP64, MONOTONIC, 0, (long)pause, 0, 0);
    }
    power_off();
    return -1;
}

int main(void)
{
    uint64_t child = 1ull << (SIGCHLD - 1);

    mount_system("proc", "/proc");
    mount_system("sysfs", "/sys");
    mount_system("devtmpfs", "/dev");
    mount_system("devpts", "/dev/pts");
    mount_system("tmpfs", "/dev/shm");
    mount_system("mqueue", "/dev/mqueue");
    raise_loopback();
    call(SYS_RT_SIGPROCMASK, SIG_BLOCK, (long)&child, 0, 8, 0);
    children = (int)call(SYS_SIGNALFD4, -1, (long)&child, 8, NONBLOCK | CLOSE_ON_EXEC, 0);
    port = open_port();
    send(READY, 0, 0, 0);
    serve();
}

__attribute__((naked, noreturn)) void _start(void)
{
    __asm__("bl main");
}
