#include "request.h"
#include "devices.h"
#include "files.h"
#include "jobs.h"
#include "network.h"
#include "processes.h"
#include "system.h"

#define STRINGS_MOST 65536 /* arguments and variables of a program, together */

enum { ADD_ENTROPY = 0x40085203, RESEED = 0x5207, SET_NO_NEW_PRIVILEGES = 38 };

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

static long add_entropy(const uint8_t *data, uint32_t size)
{
    static struct {
        int32_t bits, bytes;
        uint8_t data[512];
    } pool;
    long file = open_file("/dev/urandom", READ_WRITE, 0), answer;

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

static long set_time(const uint8_t *value)
{
    int64_t time[2] = {number(value), number(value + 4)};

    return call(SYS_CLOCK_SETTIME64, 0, (long)time, 0, 0, 0);
}

static uint64_t long_number(const uint8_t *at)
{
    return number(at) | (uint64_t)number(at + 4) << 32;
}

/* Carry an item out that makes files. */
static long make(struct carrier *carrier, const struct item *item)
{
    uint8_t *value = item->value;
    char *text = (char *)value, *next;

    switch (item->tag) {
    case ITEM_MOUNT:
        return mount_at(number(value), text + 4);
    case ITEM_MAKE:
        return make_directories(text);
    case ITEM_FILE:
        next = next_text(text + 4);
        return write_file(text + 4, number(value), (uint8_t *)next, item->size - (uint32_t)(next - text));
    case ITEM_LINK:
        return call(SYS_SYMLINK, (long)text, (long)next_text(text), 0, 0, 0);
    case ITEM_NODE:
        return make_node(text + 8, number(value), number(value + 4));
    case ITEM_PARTITION:
        return add_partition(text + 20, long_number(value), long_number(value + 8), number(value + 16));
    case ITEM_DISK:
        return await_disk(text + 8, long_number(value));
    case ITEM_PIVOT:
        return pivot_root(text, &carrier->old_root);
    case ITEM_DETACH:
        return detach_root(&carrier->old_root);
    case ITEM_CONSOLE:
        return carrier->terminal ? bind_file(carrier->terminal + 1, text) : 0; /* from the old root */
    case ITEM_BIND:
        return bind_at(text, next_text(text));
    case ITEM_HIDE:
        return hide_path(text);
    case ITEM_FREEZE:
        return freeze_path(text);
    default:
        return -EINVAL;
    }
}

/* Carry an item out. Return 0 or more, or an error number. */
static long carry_out(struct carrier *carrier, const struct item *item)
{
    uint8_t *value = item->value;
    char *text = (char *)value;
    long answer;

    switch (item->tag) {
    case ITEM_DIRECTORY:
        return call(SYS_CHDIR, (long)text, 0, 0, 0, 0);
    case ITEM_ROOT:
        answer = call(SYS_CHROOT, (long)text, 0, 0, 0, 0);
        return answer < 0 ? answer : call(SYS_CHDIR, (long)"/", 0, 0, 0, 0);
    case ITEM_GROUPS:
        return call(SYS_SETGROUPS, (long)(item->size / 4), (long)value, 0, 0, 0);
    case ITEM_OWNER:
        answer = call(SYS_SETGID, (long)number(value + 4), 0, 0, 0, 0);
        return answer < 0 ? answer : call(SYS_SETUID, (long)number(value), 0, 0, 0, 0);
    case ITEM_USER:
        return become_user(text, text + item->size, &carrier->home);
    case ITEM_HOST_NAME:
        return call(SYS_SETHOSTNAME, (long)text, (long)length(text), 0, 0, 0);
    case ITEM_TIME:
        return set_time(value);
    case ITEM_ENTROPY:
        return add_entropy(value, item->size);
    case ITEM_NAMESPACES:
        return call(SYS_UNSHARE, (long)number(value), 0, 0, 0, 0);
    case ITEM_ENTER:
        return enter_namespaces(number(value), number(value + 4));
    case ITEM_FORK:
        return fork_into(carrier);
    case ITEM_CAPABILITIES:
        return bound_capabilities(long_number(value));
    case ITEM_LIMIT:
        return call(SYS_PRLIMIT64, 0, (long)number(value), (long)(value + 4), 0, 0);
    case ITEM_NO_PRIVILEGES:
        return call(SYS_PRCTL, SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0);
    case ITEM_DEVICES:
        return allow_all_devices();
    case ITEM_INTERFACE:
        return set_interface(value, item->size);
    case ITEM_MASK:
        return call(SYS_UMASK, (long)number(value), 0, 0, 0, 0);
    case ITEM_INIT:
        carrier->is_init = 1;
        return 0;
    case ITEM_ARGUMENT:
    case ITEM_VARIABLE:
    case ITEM_PROGRAM:
    case ITEM_JOB:
    case ITEM_TERMINAL:
    case ITEM_WINDOW:
        return 0;  /* They are read where they are needed. */
    default:
        return make(carrier, item);
    }
}

/* Collect the values with this tag from `from` on. Returns where the zero that ends them is to be, 0 without room. */
static uint32_t collect(const struct request *request, uint8_t wanted, uint32_t from)
{
    struct item item;

    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next)
        if (item.tag == wanted) {
            if (from >= STRINGS_MOST - 4)
                return 0;
            strings[from++] = (char *)item.value;
        }
    return from;
}

/* The value of a variable of the environment, which begins at `at` in the strings; or 0. */
static char *variable(uint32_t at, const char *name)
{
    for (; strings[at]; at++)
        if (begins_with(strings[at], name) && strings[at][length(name)] == '=')
            return strings[at] + length(name) + 1;
    return 0;
}

static __attribute__((noreturn)) void fail(int report, long error, uint32_t tag, uint32_t place)
{
    struct failure found = {(int32_t)-error, tag, place};

    call(SYS_WRITE, report, (long)&found, sizeof found, 0, 0);
    exit_with(127);
}

/* Execute a program, and return why that is not possible. */
static long execute(const char *program, const char *path, char **arguments, char **environment)
{
    static char full[PATH_MOST];
    long worst = -ENOENT, answer;

    for (const char *at = program; *at; at++)
        if (*at == '/')
            path = 0;
    if (!path)
        return call(SYS_EXECVE, (long)program, (long)arguments, (long)environment, 0, 0);
    while (*path) {
        uint32_t size = 0;
        while (path[size] && path[size] != ':')
            size++;
        if (size + length(program) + 2 < sizeof full) {
            memcpy(full, size ? path : ".", size ? size : 1);
            full[size ? size : 1] = 0;
            join(full, sizeof full, full, "/", program);
            answer = call(SYS_EXECVE, (long)full, (long)arguments, (long)environment, 0, 0);
            if (answer != -ENOENT && answer != -ENOTDIR)
                worst = answer;
            if (answer != -ENOENT && answer != -ENOTDIR && answer != -EACCES)
                return answer;
        }
        path += size + (path[size] == ':');
    }
    return worst;
}

static __attribute__((noreturn)) void end_in_program(struct carrier *carrier, char *program, uint32_t place)
{
    static char home[PATH_MOST];
    uint32_t variables = collect(carrier->request, ITEM_ARGUMENT, 0), end;
    long answer;

    strings[variables++] = 0;
    end = collect(carrier->request, ITEM_VARIABLE, variables);
    if (variables == 1 || !end)
        fail(carrier->report, -E2BIG, ITEM_PROGRAM, place);
    strings[end] = 0;
    if (carrier->home && !variable(variables, "HOME") && !join(home, sizeof home, "HOME=", carrier->home, "")) {
        strings[end++] = home;
        strings[end] = 0;
    }
    if (carrier->is_init && (answer = stay_as_init()) < 0)
        fail(carrier->report, answer, ITEM_INIT, place);
    answer = execute(program, variable(variables, "PATH"), strings, strings + variables);
    fail(carrier->report, answer, ITEM_PROGRAM, place);
}

void become(struct carrier *carrier)
{
    const struct request *request = carrier->request;
    struct item item;
    uint32_t place = 0;
    char *program = (char *)find_item(request, ITEM_PROGRAM);

    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next, place++) {
        long answer = carry_out(carrier, &item);
        if (answer < 0)
            fail(carrier->report, answer, item.tag, place);
    }
    if (program)
        end_in_program(carrier, program, place);
    for (uint32_t at = 0, next; (next = item_at(request, at, &item)); at = next)
        if (item.tag == ITEM_JOB) {
            call(SYS_CLOSE_RANGE, 3, -1, 0, 0, 0); /* also `report`, so that the agent knows that it has begun */
            exit_with(do_job((char *)item.value, (char *)item.value + item.size));
        }
    fail(carrier->report, -EINVAL, ITEM_PROGRAM, place);
}
