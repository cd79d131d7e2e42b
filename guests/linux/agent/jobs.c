#include "jobs.h"
#include "request.h"
#include "system.h"

#define PIECE 65536

static uint8_t waiting[PIECE];
static uint32_t waiting_bytes;
static uint8_t content[PIECE];

void give_up(long error, const char *about)
{
    char digits[24];

    put_rest();
    write_decimal(digits, (uint64_t)(error < 0 ? -error : error));
    write_all(2, digits, length(digits));
    write_all(2, " ", 1);
    write_all(2, about, length(about));
    exit_with(1);
}

void put_rest(void)
{
    uint32_t size = waiting_bytes;

    waiting_bytes = 0;
    if (write_all(1, waiting, size) < 0)
        exit_with(1); /* nobody reads it */
}

void put(const void *data, uint32_t size)
{
    const uint8_t *from = data;

    while (size) {
        uint32_t part = PIECE - waiting_bytes;
        part = part < size ? part : size;
        memcpy(waiting + waiting_bytes, from, part);
        waiting_bytes += part;
        from += part;
        size -= part;
        if (waiting_bytes == PIECE)
            put_rest();
    }
}

void put_number(uint64_t value, char behind)
{
    char digits[24], *end = write_decimal(digits, value);

    *end++ = behind;
    put(digits, (uint32_t)(end - digits));
}

static void put_file(const char *path)
{
    long file = open_file(path, READ_ONLY | NONBLOCK, 0), size = file;
    uint32_t bytes;

    if (file >= 0) {
        size = read_all((int)file, content, PIECE);
        call(SYS_CLOSE, file, 0, 0, 0, 0);
    }
    bytes = size < 0 ? 0xffffffffu : (uint32_t)size;
    put(&bytes, sizeof bytes);
    if (size > 0)
        put(content, bytes);
}

static int put_status(char *path)
{
    static char target[PATH_MOST];
    struct status status;
    long answer = status_at(AT_HERE, path, AT_NO_FOLLOW, &status), size;

    if (answer < 0)
        give_up(answer, path);
    put_number(status.mode, ' ');
    put_number(status.size, ' ');
    put_number(status.modified.seconds < 0 ? 0 : (uint64_t)status.modified.seconds, ' ');
    size = call(SYS_READLINKAT, AT_HERE, (long)path, (long)target, sizeof target, 0);
    if (size > 0)
        put(target, (uint32_t)size);
    put_rest();
    return 0;
}

/* For each process: its number, and the sizes and contents of three files. */
static int put_processes(void)
{
    static const char *const names[] = {"/stat", "/status", "/cmdline"};
    static uint8_t entries[4096];
    long directory = open_file("/proc", READ_ONLY | DIRECTORY, 0), got;
    uint32_t pid;
    char path[64];

    while ((got = call(SYS_GETDENTS64, directory, (long)entries, sizeof entries, 0, 0)) > 0)
        for (uint8_t *at = entries; at < entries + got; at += at[16] | at[17] << 8) {
            const char *name = (const char *)at + 19;
            if (read_decimal(name, &pid) != length(name))
                continue;
            put(&pid, sizeof pid);
            for (uint32_t which = 0; which < 3; which++) {
                join(path, sizeof path, "/proc/", name, names[which]);
                put_file(path);
            }
        }
    put_rest();
    return 0;
}

int do_job(char *job, const char *end)
{
    char *first = job + 2, *second;

    if (first >= end)
        first = "";
    second = first + length(first) + 1 < end ? next_text(first) : "";
    switch (job[0]) {
    case JOB_READ:
        for (; first < end && first >= job; first = next_text(first))
            put_file(first);
        put_rest();
        return 0;
    case JOB_STATUS:
        return put_status(first);
    case JOB_PROCESSES:
        return put_processes();
    case JOB_PACK:
        return pack(first, second);
    case JOB_UNPACK:
        return unpack(first, *second == 'n');
    case JOB_CHANGES:
        return list_changes(first, second);
    case JOB_LAYER:
        return pack_layer(first);
    default:
        give_up(-EINVAL, "there is no such job");
    }
}
