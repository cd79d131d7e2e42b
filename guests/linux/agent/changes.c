/* Lists how the upper directory of an overlay differs from what is below it. */
#include "jobs.h"
#include "system.h"

#define DEEPEST 400

static char path[PATH_MOST], below[PATH_MOST];

static void tell(char kind)
{
    put(&kind, 1);
    put("/", 1);
    put(path, length(path) + 1);
}

/* The status of what is below `path`. */
static long status_below(const char *lower, struct status *status)
{
    long answer = join(below, sizeof below, lower, "/", path);

    return answer < 0 ? answer : status_at(AT_HERE, below, AT_NO_FOLLOW, status);
}

static void list(const char *upper, const char *lower, uint32_t base, int depth);

/* Tell what was deleted because a directory has been made anew. */
static void list_deleted(const char *upper, const char *lower, uint32_t base)
{
    static uint8_t entries[4096];
    static char above[PATH_MOST];
    struct status status;
    long directory, got;

    if (join(below, sizeof below, lower, "/", path) < 0)
        give_up(-ENAMETOOLONG, path);
    directory = open_file(below, READ_ONLY | DIRECTORY, 0);
    while (directory >= 0 && (got = call(SYS_GETDENTS64, directory, (long)entries, sizeof entries, 0, 0)) > 0)
        for (uint8_t *at = entries; at < entries + got; at += at[16] | at[17] << 8) {
            const char *entry = (const char *)at + 19;
            if (is_same(entry, ".") || is_same(entry, "..") || length(entry) >= PATH_MOST - base)
                continue;
            memcpy(path + base, entry, length(entry) + 1);
            if (join(above, sizeof above, upper, "/", path) < 0)
                give_up(-ENAMETOOLONG, path);
            if (status_at(AT_HERE, above, AT_NO_FOLLOW, &status) == -ENOENT)
                tell('D');
        }
    close_file((int[]){(int)directory});
    path[base - 1] = 0;
}

static void list_entry(const char *upper, const char *lower, const char *full, int depth)
{
    struct status status, old;
    uint8_t value[4];
    long answer = status_at(AT_HERE, full, AT_NO_FOLLOW, &status), was = status_below(lower, &old);

    if (answer < 0)
        give_up(answer, path);
    uint32_t kind = status.mode & MODE_KIND;
    if (kind == MODE_CHARACTER && !status.rdev_major && !status.rdev_minor) {
        if (was >= 0)
            tell('D');
        return;
    }
    tell(was < 0 ? 'A' : 'C');
    if (kind != MODE_DIRECTORY)
        return;
    uint32_t base = length(path);
    if (base >= PATH_MOST - 2 || depth > DEEPEST)
        give_up(-ENAMETOOLONG, path);
    int is_opaque = call(SYS_LGETXATTR, (long)full, (long)"trusted.overlay.opaque", (long)value, sizeof value, 0) > 0;
    path[base] = '/';
    path[base + 1] = 0;
    if (is_opaque && was >= 0 && (old.mode & MODE_KIND) == MODE_DIRECTORY)
        list_deleted(upper, lower, base + 1);
    path[base] = '/';
    list(upper, lower, base + 1, depth + 1);
    path[base] = 0;
}

/* List what is in a directory, whose path with a slash has `base` characters. */
static void list(const char *upper, const char *lower, uint32_t base, int depth)
{
    uint8_t entries[2048];
    char full[PATH_MOST];
    long directory, got;

    path[base] = 0;
    if (join(full, sizeof full, upper, "/", path) < 0)
        give_up(-ENAMETOOLONG, path);
    directory = open_file(full, READ_ONLY | DIRECTORY, 0);
    if (directory < 0)
        give_up(directory, path);
    while ((got = call(SYS_GETDENTS64, directory, (long)entries, sizeof entries, 0, 0)) > 0)
        for (uint8_t *at = entries; at < entries + got; at += at[16] | at[17] << 8) {
            const char *entry = (const char *)at + 19;
            if (is_same(entry, ".") || is_same(entry, ".."))
                continue;
            if (length(entry) >= PATH_MOST - base)
                give_up(-ENAMETOOLONG, path);
            memcpy(path + base, entry, length(entry) + 1);
            if (join(full, sizeof full, upper, "/", path) < 0)
                give_up(-ENAMETOOLONG, path);
            list_entry(upper, lower, full, depth);
        }
    call(SYS_CLOSE, directory, 0, 0, 0, 0);
}

int list_changes(const char *upper, const char *lower)
{
    list(upper, lower, 0, 0);
    put_rest();
    return 0;
}
