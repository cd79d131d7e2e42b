/*
 * Unpacks a tar archive from standard input in a directory. It may come from anybody. The root directory is the
 * container's, so links lead to nothing outside it.
 */
#include "jobs.h"
#include "system.h"
#include "tar.h"

#define RECORDS_MOST 1048576
#define TIMES_MOST (32u << 20)

static struct tar_header header;
static char name[PATH_MOST], link_name[PATH_MOST];
static uint8_t records[RECORDS_MOST + 1], piece[32768];
static uint32_t records_bytes;
static int has_name, has_link, has_size, has_owner[2], has_time;
static uint64_t size, seconds;
static uint32_t owners[2];

/* Times of directories, which are set in the end: 8 bytes, and the path. */
static uint8_t *times;
static uint32_t times_bytes;

static void read_exactly(void *to, uint32_t bytes)
{
    long got = read_all(0, to, bytes);

    if (got != (long)bytes)
        give_up(-EINVAL, "the archive ends too early");
}

static void skip(uint64_t bytes)
{
    while (bytes) {
        uint32_t part = bytes < sizeof piece ? (uint32_t)bytes : (uint32_t)sizeof piece;
        read_exactly(piece, part);
        bytes -= part;
    }
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + TAR_BLOCK - 1) & ~(uint64_t)(TAR_BLOCK - 1);
}

/* A number of a header: octal, or binary if the first bit is set. */
static uint64_t number_of(const char *field, uint32_t bytes)
{
    uint64_t read = 0;
    uint32_t at = 0;

    if (field[0] & 0x80) {
        for (at = 1; at < bytes; at++)
            read = read << 8 | (uint8_t)field[at];
        return read;
    }
    while (at < bytes && field[at] == ' ')
        at++;
    for (; at < bytes && field[at] >= '0' && field[at] <= '7'; at++)
        read = read << 3 | (uint64_t)(field[at] - '0');
    return read;
}

static int is_right(void)
{
    uint32_t sum = 8 * ' ';

    for (uint32_t at = 0; at < TAR_BLOCK; at++)
        if (at < 148 || at >= 156)
            sum += ((const uint8_t *)&header)[at];
    return sum == number_of(header.checksum, sizeof header.checksum);
}

static void take_text(char *to, const void *from, uint32_t bytes)
{
    if (bytes >= PATH_MOST)
        give_up(-ENAMETOOLONG, "a name in the archive");
    memcpy(to, from, bytes);
    to[bytes] = 0;
}

/* Find the next record from `*at` on: its key and value, as texts. Returns 0 at the end. */
static int next_record(uint32_t *at, char **key, uint8_t **data, uint32_t *bytes)
{
    uint32_t whole, digits = *at < records_bytes ? read_decimal((char *)records + *at, &whole) : 0;
    uint32_t first = *at + digits + 1, end;

    if (!digits)
        return 0;
    end = *at + whole;
    if (whole > records_bytes - *at || first >= end || end < 1)
        give_up(-EINVAL, "a record of the archive");
    *key = (char *)records + first;
    for (; first < end && records[first] != '='; first++)
        ;
    if (first + 1 >= end)
        give_up(-EINVAL, "a record of the archive");
    records[first] = 0;
    *data = records + first + 1;
    *bytes = end - first - 2;
    records[end - 1] = 0;
    *at = end;
    return 1;
}

/* A number of a record, of which a fraction does not count. */
static uint64_t value_of(const uint8_t *text)
{
    uint64_t read = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        read = read * 10 + (uint64_t)(*text - '0');
    return read;
}

static void take_records(void)
{
    uint8_t *data;
    uint32_t bytes;
    char *key;

    for (uint32_t at = 0; next_record(&at, &key, &data, &bytes);) {
        if (is_same(key, "path")) {
            take_text(name, data, bytes);
            has_name = 1;
        } else if (is_same(key, "linkpath")) {
            take_text(link_name, data, bytes);
            has_link = 1;
        } else if (is_same(key, "size")) {
            size = value_of(data);
            has_size = 1;
        } else if (is_same(key, "mtime")) {
            seconds = value_of(data);
            has_time = 1;
        } else if (is_same(key, "uid") || is_same(key, "gid")) {
            owners[key[0] == 'g'] = (uint32_t)value_of(data);
            has_owner[key[0] == 'g'] = 1;
        }
    }
}

/* The attributes among the records, whose keys have been ended by zeros already. */
static void set_xattrs(const char *file)
{
    uint32_t at = 0, whole, digits;

    while (at < records_bytes && (digits = read_decimal((char *)records + at, &whole))) {
        const char *key = (char *)records + at + digits + 1;
        const char *data = key + length(key) + 1;
        if (begins_with(key, TAR_XATTR) && !begins_with(key, TAR_XATTR "trusted.")) {
            long answer = call(SYS_LSETXATTR, (long)file, (long)(key + length(TAR_XATTR)), (long)data,
                               (long)((char *)records + at + whole - 1 - data), 0);
            if (answer < 0 && answer != -EOPNOTSUPP)
                give_up(answer, name);
        }
        at += whole;
    }
}

static void forget(void)
{
    has_name = has_link = has_size = has_owner[0] = has_owner[1] = has_time = 0;
    records_bytes = 0;
}

/* Read the header of the next entry. Returns 0 at the end. */
static int read_entry(void)
{
    forget();
    for (;;) {
        long got = read_all(0, &header, TAR_BLOCK);
        if (got == 0 || (got == TAR_BLOCK && !header.name[0] && !header.checksum[0]))
            return 0;
        if (got != TAR_BLOCK || !is_right())
            give_up(-EINVAL, "this is no tar archive");
        uint64_t bytes = number_of(header.size, sizeof header.size);
        char kind = header.kind;
        if (kind != TAR_EXTENDED && kind != TAR_GLOBAL && kind != TAR_LONG_NAME && kind != TAR_LONG_LINK) {
            size = has_size ? size : bytes;
            return 1;
        }
        if (bytes > RECORDS_MOST - TAR_BLOCK)
            give_up(-E2BIG, "a record of the archive");
        if (kind == TAR_GLOBAL) {
            skip(padded(bytes));
        } else if (kind == TAR_EXTENDED) {
            read_exactly(records, (uint32_t)padded(bytes));
            records_bytes = (uint32_t)bytes;
            records[bytes] = 0;
            take_records();
        } else {
            uint8_t *to = (uint8_t *)records + RECORDS_MOST / 2;
            if (bytes > RECORDS_MOST / 2 - TAR_BLOCK || records_bytes > RECORDS_MOST / 2)
                give_up(-E2BIG, "a name in the archive");
            read_exactly(to, (uint32_t)padded(bytes));
            to[bytes] = 0;
            take_text(kind == TAR_LONG_NAME ? name : link_name, to, length((char *)to));
            *(kind == TAR_LONG_NAME ? &has_name : &has_link) = 1;
        }
    }
}

/* The text of a field, which may fill it. */
static uint32_t field_length(const char *field, uint32_t most)
{
    uint32_t bytes = 0;

    while (bytes < most && field[bytes])
        bytes++;
    return bytes;
}

/* Make the name relative: without a slash at its ends, and without parts "." and "..", of which the last is refused. */
static void clean(char *path)
{
    char *to = path, *at = path;

    while (*at) {
        char *part = at;
        while (*at && *at != '/')
            at++;
        uint32_t bytes = (uint32_t)(at - part);
        while (*at == '/')
            at++;
        if (bytes == 2 && part[0] == '.' && part[1] == '.')
            give_up(-EINVAL, "a name in the archive leads out of its directory");
        if (!bytes || (bytes == 1 && part[0] == '.'))
            continue;
        if (to != path)
            *to++ = '/';
        memcpy(to, part, bytes); /* downwards */
        to += bytes;
    }
    *to = 0;
}

static void take_header(void)
{
    if (!has_name) {
        uint32_t before = 0;
        if (!compare(header.magic, "ustar\0", 6) && header.prefix[0]) {
            before = field_length(header.prefix, sizeof header.prefix);
            take_text(name, header.prefix, before);
            name[before++] = '/';
        }
        take_text(name + before, header.name, field_length(header.name, sizeof header.name));
    }
    if (!has_link)
        take_text(link_name, header.link, field_length(header.link, sizeof header.link));
    if (!has_owner[0])
        owners[0] = (uint32_t)number_of(header.uid, sizeof header.uid);
    if (!has_owner[1])
        owners[1] = (uint32_t)number_of(header.gid, sizeof header.gid);
    if (!has_time)
        seconds = number_of(header.time, sizeof header.time);
    clean(name);
}

/* -- files ----------------------------------------------------------------------------------- */

static void make_parents(void)
{
    for (char *at = name; *at; at++)
        if (*at == '/') {
            *at = 0;
            long answer = call(SYS_MKDIRAT, AT_HERE, (long)name, 0755, 0, 0);
            if (answer < 0 && answer != -EEXIST)
                give_up(answer, name);
            *at = '/';
        }
}

/* Remove what is at a path of the working directory, with all that is in it. */
static void remove_all(const char *path, int depth)
{
    uint8_t entries[1024];
    long answer = call(SYS_UNLINKAT, AT_HERE, (long)path, 0, 0, 0), handle, back, got;

    if (answer >= 0 || answer == -ENOENT)
        return;
    handle = call(SYS_OPENAT, AT_HERE, (long)path, READ_ONLY | DIRECTORY | NO_FOLLOW | CLOSE_ON_EXEC, 0, 0);
    back = call(SYS_OPENAT, AT_HERE, (long)".", PATH_ONLY | DIRECTORY | CLOSE_ON_EXEC, 0, 0);
    if (handle < 0 || back < 0 || depth > 400 || call(SYS_FCHDIR, handle, 0, 0, 0, 0) < 0)
        give_up(answer, path);
    while ((got = call(SYS_GETDENTS64, handle, (long)entries, sizeof entries, 0, 0)) > 0)
        for (uint8_t *at = entries; at < entries + got; at += at[16] | at[17] << 8) {
            const char *entry = (const char *)at + 19;
            if (!is_same(entry, ".") && !is_same(entry, ".."))
                remove_all(entry, depth + 1);
        }
    call(SYS_FCHDIR, back, 0, 0, 0, 0);
    call(SYS_CLOSE, back, 0, 0, 0, 0);
    call(SYS_CLOSE, handle, 0, 0, 0, 0);
    answer = call(SYS_UNLINKAT, AT_HERE, (long)path, AT_REMOVE_DIRECTORY, 0, 0);
    if (answer < 0)
        give_up(answer, path);
}

/* Make room for an entry: what is there goes, unless both are directories. Returns whether a directory stays. */
static int make_room(int is_directory, int keeps_kind)
{
    struct status status;
    long answer = status_at(AT_HERE, name, AT_NO_FOLLOW, &status);
    int was_directory = (status.mode & MODE_KIND) == MODE_DIRECTORY;

    if (answer < 0)
        return 0;
    if (keeps_kind && was_directory != is_directory)
        give_up(is_directory ? -ENOTDIR : -EISDIR, name);
    if (is_directory && was_directory)
        return 1;
    remove_all(name, 0);
    return 0;
}

static void write_content(void)
{
    static uint8_t zeros[4096];
    long file = call(SYS_OPENAT, AT_HERE, (long)name,
                     WRITE_ONLY | CREATE | EXCLUSIVE | NO_FOLLOW | CLOSE_ON_EXEC | 0400000, 0600, 0); /* O_LARGEFILE */
    uint64_t left = size, place;

    if (file < 0)
        give_up(file, name);
    while (left) {
        uint32_t part = left < sizeof zeros ? (uint32_t)left : (uint32_t)sizeof zeros;
        long answer;
        read_exactly(piece, part);
        left -= part;
        if (part == sizeof zeros && left && !compare(piece, zeros, part)) /* a hole */
            answer = call(SYS_LLSEEK, file, 0, (long)part, (long)&place, 1);
        else
            answer = write_all((int)file, piece, part);
        if (answer < 0)
            give_up(answer, name);
    }
    skip(padded(size) - size);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
}

static long make_hard_link(void)
{
    char *at = link_name;

    clean(at);
    return call(SYS_LINKAT, AT_HERE, (long)link_name, AT_HERE, (long)name, 0);
}

static long make_device(uint32_t kind)
{
    uint32_t major = (uint32_t)number_of(header.major, sizeof header.major);
    uint32_t minor = (uint32_t)number_of(header.minor, sizeof header.minor);
    uint32_t device = (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12;

    return call(SYS_MKNODAT, AT_HERE, (long)name, (long)(kind | 0600), kind == MODE_FIFO ? 0 : (long)device, 0);
}

static void set_time(const char *path, uint64_t time)
{
    int64_t both[4] = {(int64_t)time, 0, (int64_t)time, 0};

    call(SYS_UTIMENSAT64, AT_HERE, (long)path, (long)both, AT_NO_FOLLOW, 0);
}

static void set_attributes(char kind)
{
    long answer = call(SYS_FCHOWNAT, AT_HERE, (long)name, (long)owners[0], (long)owners[1], AT_NO_FOLLOW);

    if (answer >= 0 && kind != TAR_LINK)
        answer = call(SYS_FCHMODAT, AT_HERE, (long)name, (long)(number_of(header.mode, 8) & 07777), 0, 0);
    if (answer < 0)
        give_up(answer, name);
    set_xattrs(name);
    if (kind != TAR_DIRECTORY) {
        set_time(name, seconds);
        return;
    }
    if (!times)
        times = allocate(TIMES_MOST);
    if (times && length(name) + 9 <= TIMES_MOST - times_bytes) {
        memcpy(times + times_bytes, &seconds, 8);
        memcpy(times + times_bytes + 8, name, length(name) + 1);
        times_bytes += 8 + length(name) + 1;
    }
}

static void make_entry(char kind, int keeps_kind)
{
    long answer = 0;

    make_parents();
    int stays = make_room(kind == TAR_DIRECTORY, keeps_kind);
    switch (kind) {
    case TAR_DIRECTORY:
        answer = stays ? 0 : call(SYS_MKDIRAT, AT_HERE, (long)name, 0755, 0, 0);
        break;
    case TAR_HARD_LINK:
        answer = make_hard_link();
        break;
    case TAR_LINK:
        answer = call(SYS_SYMLINKAT, (long)link_name, AT_HERE, (long)name, 0, 0);
        break;
    case TAR_CHARACTER:
        answer = make_device(MODE_CHARACTER);
        break;
    case TAR_BLOCK_DEVICE:
        answer = make_device(MODE_BLOCK);
        break;
    case TAR_FIFO:
        answer = make_device(MODE_FIFO);
        break;
    default:
        write_content();
    }
    if (answer < 0)
        give_up(answer, name);
    if (kind != TAR_HARD_LINK)
        set_attributes(kind);
}

int unpack(const char *path, int keeps_kind)
{
    long answer = call(SYS_CHDIR, (long)path, 0, 0, 0, 0);

    if (answer < 0)
        give_up(answer, path);
    while (read_entry()) {
        char kind = header.kind;
        take_header();
        if (kind == 0 || kind == '7')
            kind = TAR_FILE;
        if (kind < TAR_FILE || kind > TAR_FIFO)
            give_up(-EOPNOTSUPP, "an entry of the archive is of a kind that is not known");
        if (kind != TAR_FILE)
            skip(padded(size));
        if (name[0])
            make_entry(kind, keeps_kind);
        else if (kind == TAR_FILE)
            skip(padded(size));
    }
    while (call(SYS_READ, 0, (long)piece, sizeof piece, 0, 0) > 0)
        ; /* what comes behind the end */
    for (uint32_t at = 0; at < times_bytes; at += 8 + length((char *)times + at + 8) + 1) {
        uint64_t time;
        memcpy(&time, times + at, 8);
        set_time((char *)times + at + 8, time);
    }
    return 0;
}
