#include "request.h"
#include "system.h"

#define STRINGS_MOST 65536 /* arguments and variables of a program, together */

enum { ADD_ENTROPY = 0x40085203, RESEED = 0x5207 };

static char *strings[STRINGS_MOST];

uint32_t item_at(const struct request *request, uint32_t at, struct item *item)
{
    if (request->size - at < 5)
        return 0;
    item->tag = request->items[at];
    item->size = number(request->items + at + 1);
    item->value = request->items + at + 5;
    return item->size <= request->size - at - 5 ? at + 5 + item->size : 0;
}

uint8_t *find_item(const struct request *request, uint8_t tag)
{
    struct item item;

    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next)
        if (item.tag == tag)
            return item.value;
    return 0;
}

char *next_text(char *text)
{
    return text + length(text) + 1;
}

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

static long mount_at(uint32_t flags, char *source)
{
    char *target = next_text(source), *type = next_text(target);

    return call(SYS_MOUNT, (long)source, (long)target, (long)type, (long)flags, (long)next_text(type));
}

long carry_out(const struct item *item)
{
    uint8_t *value = item->value;
    char *text = (char *)value, *next;
    int64_t time[2];
    long answer;

    switch (item->tag) {
    case ITEM_DIRECTORY:
        return call(SYS_CHDIR, (long)text, 0, 0, 0, 0);
    case ITEM_MOUNT:
        return mount_at(number(value), text + 4);
    case ITEM_MAKE:
        return make_directories(text);
    case ITEM_FILE:
        next = next_text(text + 4);
        return write_file(text + 4, number(value), (uint8_t *)next, item->size - (uint32_t)(next - text));
    case ITEM_LINK:
        return call(SYS_SYMLINK, (long)text, (long)next_text(text), 0, 0, 0);
    case ITEM_ROOT:
        answer = call(SYS_CHROOT, (long)text, 0, 0, 0, 0);
        return answer < 0 ? answer : call(SYS_CHDIR, (long)"/", 0, 0, 0, 0);
    case ITEM_GROUPS:
        return call(SYS_SETGROUPS, (long)(item->size / 4), (long)value, 0, 0, 0);
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
        return add_entropy(value, item->size);
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

/* Collect the values with this tag from `from` on. Returns the place behind the zero that ends them, 0 without room. */
static uint32_t collect(const struct request *request, uint8_t wanted, uint32_t from)
{
    struct item item;

    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next)
        if (item.tag == wanted) {
            if (from >= STRINGS_MOST - 2)
                return 0;
            strings[from++] = (char *)item.value;
        }
    strings[from] = 0;
    return from + 1;
}

static __attribute__((noreturn)) void fail(int report, long error, uint32_t tag, uint32_t place)
{
    struct failure found = {(int32_t)-error, tag, place};

    call(SYS_WRITE, report, (long)&found, sizeof found, 0, 0);
    exit_with(127);
}

void become(const struct request *request, int report)
{
    struct item item;
    uint32_t place = 0, variables;
    char *program = (char *)find_item(request, ITEM_PROGRAM);

    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next, place++) {
        long answer = carry_out(&item);
        if (answer < 0)
            fail(report, answer, item.tag, place);
    }
    variables = collect(request, ITEM_ARGUMENT, 0);
    if (!program || !collect(request, ITEM_VARIABLE, variables))
        fail(report, program ? -E2BIG : -EINVAL, ITEM_PROGRAM, place);
    long answer = call(SYS_EXECVE, (long)program, (long)strings, (long)(strings + variables), 0, 0);
    fail(report, answer, ITEM_PROGRAM, place);
}
