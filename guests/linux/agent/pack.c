/* Writes tar archives: of what is at a path, and of the upper directory of an overlay as an OCI layer. */
#include "jobs.h"
#include "system.h"
#include "tar.h"

#define RECORDS_MOST 131072
#define LINKS 65536
#define NAMES_MOST (16u << 20)
#define DEEPEST 400

enum { XATTR_MOST = 65536 };

static char name[PATH_MOST];     /* of the entry, in the archive */
static char target[PATH_MOST];   /* of a link */
static uint8_t records[RECORDS_MOST];
static uint32_t records_bytes;
static uint8_t value[XATTR_MOST], piece[32768];
static char xattrs[XATTR_MOST];
static int is_layer;
static uint32_t device_major, device_minor;

/* Files with several links that are in the archive, by device and inode; `name` is an offset in `names`, or 0. */
static struct link {
    uint64_t inode;
    uint32_t major, minor, name;
} *links;
static char *names;
static uint32_t names_bytes = 1;

static void put_octal(char *to, uint32_t size, uint64_t number)
{
    to[--size] = 0;
    while (size) {
        to[--size] = (char)('0' + (number & 7));
        number >>= 3;
    }
}

static uint32_t digits_of(uint32_t number)
{
    char text[24];

    return (uint32_t)(write_decimal(text, number) - text);
}

/* Add a record "SIZE KEY=VALUE" and a newline, in which SIZE is that of all of it. */
static void add_record(const char *prefix, const char *key, const void *data, uint32_t size)
{
    uint32_t body = length(prefix) + length(key) + size + 3, whole = body + digits_of(body);
    char digits[24];

    whole = body + digits_of(whole);
    if (whole > RECORDS_MOST - records_bytes)
        give_up(-E2BIG, name);
    uint8_t *at = records + records_bytes;
    uint32_t count = (uint32_t)(write_decimal(digits, whole) - digits);
    memcpy(at, digits, count);
    at += count;
    *at++ = ' ';
    memcpy(at, prefix, length(prefix));
    at += length(prefix);
    memcpy(at, key, length(key));
    at += length(key);
    *at++ = '=';
    memcpy(at, data, size);
    at[size] = '\n';
    records_bytes += whole;
}

static void add_number(const char *key, uint64_t number)
{
    char digits[24];

    add_record("", key, digits, (uint32_t)(write_decimal(digits, number) - digits));
}

static void pad(uint64_t size)
{
    static const uint8_t zeros[TAR_BLOCK];

    put(zeros, (uint32_t)(-size & (TAR_BLOCK - 1)));
}

static void put_block(struct tar_header *header)
{
    uint32_t sum = 0;

    memcpy(header->magic, "ustar\0" "00", 8);
    memset(header->checksum, ' ', sizeof header->checksum);
    for (uint32_t at = 0; at < TAR_BLOCK; at++)
        sum += ((const uint8_t *)header)[at];
    put_octal(header->checksum, 7, sum);
    put(header, TAR_BLOCK);
}

/* Write a text into a field of a header, or into a record if it is too long. */
static void put_text(char *to, uint32_t size, const char *key, const char *text)
{
    if (length(text) <= size)
        memcpy(to, text, length(text));
    else
        add_record("", key, text, length(text));
}

static void put_owner(char *to, const char *key, uint32_t owner)
{
    if (owner > 07777777)
        add_number(key, owner);
    put_octal(to, 8, owner & 07777777);
}

/* Write the header of an entry, with the records that are there already in front of it. */
static void put_header(const struct status *status, char kind, const char *link, uint64_t size)
{
    static struct tar_header header, extended;

    memset(&header, 0, sizeof header);
    put_text(header.name, sizeof header.name, "path", name);
    put_text(header.link, sizeof header.link, "linkpath", link);
    put_octal(header.mode, 8, status->mode & 07777);
    put_owner(header.uid, "uid", status->uid);
    put_owner(header.gid, "gid", status->gid);
    if (size >> 33)
        add_number("size", size);
    put_octal(header.size, 12, size);
    put_octal(header.time, 12, status->modified.seconds < 0 ? 0 : (uint64_t)status->modified.seconds);
    put_octal(header.major, 8, kind == TAR_CHARACTER || kind == TAR_BLOCK_DEVICE ? status->rdev_major : 0);
    put_octal(header.minor, 8, kind == TAR_CHARACTER || kind == TAR_BLOCK_DEVICE ? status->rdev_minor : 0);
    header.kind = kind;
    if (records_bytes) {
        memset(&extended, 0, sizeof extended);
        memcpy(extended.name, "pax", 3);
        put_octal(extended.mode, 8, 0644);
        put_octal(extended.uid, 8, 0);
        put_octal(extended.gid, 8, 0);
        put_octal(extended.size, 12, records_bytes);
        put_octal(extended.time, 12, 0);
        extended.kind = TAR_EXTENDED;
        put_block(&extended);
        put(records, records_bytes);
        pad(records_bytes);
        records_bytes = 0;
    }
    put_block(&header);
}

/* Add the attributes of a file that belong into an archive: not those of the overlay, nor what mode and owner say. */
static void add_xattrs(const char *file)
{
    long size = call(SYS_LLISTXATTR, (long)file, (long)xattrs, sizeof xattrs, 0, 0);

    for (long at = 0; at < size; at += (long)length(xattrs + at) + 1) {
        if (begins_with(xattrs + at, "trusted.") || begins_with(xattrs + at, "system."))
            continue;
        long bytes = call(SYS_LGETXATTR, (long)file, (long)(xattrs + at), (long)value, sizeof value, 0);
        if (bytes >= 0)
            add_record(TAR_XATTR, xattrs + at, value, (uint32_t)bytes);
    }
}

static int is_opaque(const char *file)
{
    return call(SYS_LGETXATTR, (long)file, (long)"trusted.overlay.opaque", (long)value, sizeof value, 0) == 1 &&
           value[0] == 'y';
}

/* The name in the archive of a file that is there already, or 0. Otherwise it is remembered. */
static const char *known_link(const struct status *status)
{
    uint32_t at = (uint32_t)(status->inode ^ status->inode >> 16) % LINKS, tries = 0;

    if (!links) {
        links = allocate(LINKS * sizeof *links);
        names = allocate(NAMES_MOST);
        if (!links || !names)
            give_up(-ENOMEM, name);
    }
    for (; links[at].name && tries < LINKS; at = (at + 1) % LINKS, tries++)
        if (links[at].inode == status->inode && links[at].major == status->dev_major &&
            links[at].minor == status->dev_minor)
            return names + links[at].name;
    if (tries == LINKS || length(name) + 1 > NAMES_MOST - names_bytes)
        return 0; /* It is there twice, then. */
    memcpy(names + names_bytes, name, length(name) + 1);
    links[at] = (struct link){status->inode, status->dev_major, status->dev_minor, names_bytes};
    names_bytes += length(name) + 1;
    return 0;
}

static void put_content(const char *file, const struct status *status)
{
    long handle = open_file(file, READ_ONLY | NO_FOLLOW | NONBLOCK, 0);
    uint64_t left = status->size;

    if (handle < 0)
        give_up(handle, name);
    add_xattrs(file);
    put_header(status, TAR_FILE, "", status->size);
    while (left) { /* A file that becomes shorter meanwhile has zeros there. */
        uint32_t part = left < sizeof piece ? (uint32_t)left : (uint32_t)sizeof piece;
        long got = read_all((int)handle, piece, part);
        if (got < 0)
            give_up(got, name);
        memset(piece + got, 0, part - (uint32_t)got);
        put(piece, part);
        left -= part;
    }
    pad(status->size);
    call(SYS_CLOSE, handle, 0, 0, 0, 0);
}

static void put_link(const char *file, const struct status *status)
{
    long size = call(SYS_READLINKAT, AT_HERE, (long)file, (long)target, sizeof target - 1, 0);

    if (size < 0)
        give_up(size, name);
    target[size] = 0;
    add_xattrs(file);
    put_header(status, TAR_LINK, target, 0);
}

/* A file of the upper directory that says that something below it is deleted. */
static void put_whiteout(struct status *status, uint32_t base, const char *deleted)
{
    static char hidden[PATH_MOST];

    if (join(hidden, sizeof hidden, ".wh.", deleted, "") < 0 || length(hidden) >= PATH_MOST - base)
        give_up(-ENAMETOOLONG, name);
    memcpy(name + base, hidden, length(hidden) + 1);
    status->mode = 0;
    put_header(status, TAR_FILE, "", 0);
}

static void put_directory(const char *file, struct status *status, int depth);

/* Write what is called `file` in the working directory, and `name` in the archive, from `base` on. */
static void put_entry(const char *file, uint32_t base, int depth)
{
    struct status status;
    long answer = status_at(AT_HERE, file, AT_NO_FOLLOW, &status);
    uint32_t kind = status.mode & MODE_KIND;
    const char *link;

    if (answer == -ENOENT)
        return; /* It has gone meanwhile. */
    if (answer < 0)
        give_up(answer, name);
    if (is_layer && kind == MODE_CHARACTER && !status.rdev_major && !status.rdev_minor) {
        put_whiteout(&status, base, file);
        return;
    }
    if (kind == MODE_DIRECTORY) {
        put_directory(file, &status, depth);
        return;
    }
    if (kind == MODE_SOCKET)
        return;
    if (status.links > 1 && (link = known_link(&status))) {
        put_header(&status, TAR_HARD_LINK, link, 0);
        return;
    }
    if (kind == MODE_FILE) {
        put_content(file, &status);
    } else if (kind == MODE_LINK) {
        put_link(file, &status);
    } else {
        add_xattrs(file);
        put_header(&status, kind == MODE_CHARACTER ? TAR_CHARACTER : kind == MODE_BLOCK ? TAR_BLOCK_DEVICE : TAR_FIFO,
                   "", 0);
    }
}

/* Write all that is in the working directory, whose name with a slash has `base` characters. */
static void put_entries(int directory, uint32_t base, int depth)
{
    uint8_t entries[2048];
    long got;

    while ((got = call(SYS_GETDENTS64, directory, (long)entries, sizeof entries, 0, 0)) > 0)
        for (uint8_t *at = entries; at < entries + got; at += at[16] | at[17] << 8) {
            const char *entry = (const char *)at + 19;
            if (is_same(entry, ".") || is_same(entry, ".."))
                continue;
            if (length(entry) >= PATH_MOST - base - 1)
                give_up(-ENAMETOOLONG, name);
            memcpy(name + base, entry, length(entry) + 1);
            put_entry(entry, base, depth + 1);
        }
    if (got < 0)
        give_up(got, name);
}

static void put_directory(const char *file, struct status *status, int depth)
{
    uint32_t base = length(name);
    long handle = call(SYS_OPENAT, AT_HERE, (long)file, READ_ONLY | DIRECTORY | NO_FOLLOW | CLOSE_ON_EXEC, 0, 0), back;

    if (handle < 0)
        give_up(handle, name);
    if (base >= PATH_MOST - 20 || depth > DEEPEST)
        give_up(-ENAMETOOLONG, name);
    if (base && name[base - 1] != '/') {
        name[base++] = '/';
        name[base] = 0;
    }
    int is_whole = is_layer && is_opaque(file);
    if (base) {
        add_xattrs(file);
        put_header(status, TAR_DIRECTORY, "", 0);
    }
    if (is_whole)
        put_whiteout(status, base, ".wh..opq");
    if (status->dev_major != device_major || status->dev_minor != device_minor) {
        call(SYS_CLOSE, handle, 0, 0, 0, 0); /* Something is mounted there, such as /proc. */
        return;
    }
    back = call(SYS_OPENAT, AT_HERE, (long)".", PATH_ONLY | DIRECTORY | CLOSE_ON_EXEC, 0, 0);
    if (back < 0 || call(SYS_FCHDIR, handle, 0, 0, 0, 0) < 0)
        give_up(-EIO, name);
    put_entries((int)handle, base, depth);
    call(SYS_FCHDIR, back, 0, 0, 0, 0);
    call(SYS_CLOSE, back, 0, 0, 0, 0);
    call(SYS_CLOSE, handle, 0, 0, 0, 0);
}

static int put_archive(const char *path)
{
    static uint8_t end[2 * TAR_BLOCK];
    struct status status;
    long answer = status_at(AT_HERE, path, AT_NO_FOLLOW, &status);

    if (answer < 0)
        give_up(answer, path);
    device_major = status.dev_major;
    device_minor = status.dev_minor;
    put_entry(path, 0, 0);
    put(end, sizeof end);
    put_rest();
    return 0;
}

int pack(const char *path, const char *as)
{
    if (join(name, sizeof name, as, "", "") < 0)
        give_up(-ENAMETOOLONG, path);
    return put_archive(path);
}

int pack_layer(const char *upper)
{
    is_layer = 1;
    return put_archive(upper);
}
