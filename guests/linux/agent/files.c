#include "files.h"
#include "request.h"
#include "system.h"

enum { BLOCK_PARTITION = 0x1269, ADD_PARTITION = 1 };
#define BLOCK_SIZE 0x80041272 /* BLKGETSIZE64 */
enum { MOUNT_READ_ONLY = 1, MOUNT_REMOUNT = 32, MOUNT_BIND = 4096, MOUNT_ALL = 16384, UNMOUNT_DETACH = 2 };

long make_directories(char *path)
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

long write_file(const char *path, uint32_t mode, const uint8_t *content, uint32_t size)
{
    long file = open_file(path, WRITE_ONLY | CREATE | TRUNCATE, (int)mode), answer;

    if (file < 0)
        return file;
    answer = write_all((int)file, content, size);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer;
}

long make_node(const char *path, uint32_t mode, uint32_t device)
{
    long answer = call(SYS_MKNODAT, AT_HERE, (long)path, (long)mode, (long)device, 0);

    return answer < 0 ? answer : call(SYS_FCHMODAT, AT_HERE, (long)path, (long)(mode & 07777), 0, 0);
}

static long mount(const char *source, const char *target, const char *type, uint32_t flags, const char *options)
{
    return call(SYS_MOUNT, (long)source, (long)target, (long)type, (long)flags, (long)options);
}

long mount_at(uint32_t flags, char *source)
{
    char *target = next_text(source), *type = next_text(target);

    return mount(source, target, type, flags, next_text(type));
}

long bind_file(const char *file, const char *path)
{
    long made = open_file(path, WRITE_ONLY | CREATE, 0644);

    if (made >= 0)
        call(SYS_CLOSE, made, 0, 0, 0, 0);
    return mount(file, path, "", MOUNT_BIND, "");
}

long bind_at(const char *file, char *path)
{
    struct status status;
    char *last = path;
    long made;

    if (status_at(AT_HERE, path, 0, &status) == -ENOENT) {
        for (char *at = path; *at; at++)
            last = *at == '/' ? at : last;
        if (last != path) {
            *last = 0;
            made = make_directories(path);
            *last = '/';
            if (made < 0)
                return made;
        }
        made = open_file(path, WRITE_ONLY | CREATE | EXCLUSIVE, 0755);
        if (made < 0)
            return made;
        call(SYS_CLOSE, made, 0, 0, 0, 0);
    }
    return mount(file, path, "", MOUNT_BIND, "");
}

long hide_path(const char *path)
{
    struct status status;
    long answer = status_at(AT_HERE, path, 0, &status);

    if (answer < 0)
        return answer == -ENOENT || answer == -ENOTDIR ? 0 : answer;
    if ((status.mode & MODE_KIND) == MODE_DIRECTORY)
        return mount("tmpfs", path, "tmpfs", MOUNT_READ_ONLY, "size=0k");
    return mount("/dev/null", path, "", MOUNT_BIND, "");
}

long freeze_path(const char *path)
{
    long answer = mount(path, path, "", MOUNT_BIND | MOUNT_ALL, "");

    if (answer < 0)
        return answer == -ENOENT || answer == -ENOTDIR ? 0 : answer;
    return mount("", path, "", MOUNT_BIND | MOUNT_REMOUNT | MOUNT_READ_ONLY, "");
}

long add_partition(const char *disk, uint64_t first, uint64_t size, uint32_t number)
{
    static struct {
        int64_t first, size;
        int32_t number;
        char names[128], unused[4];
    } partition;
    struct {
        int32_t what, flags, size;
        void *partition;
    } argument = {ADD_PARTITION, 0, sizeof partition, &partition};
    long file = open_file(disk, READ_ONLY, 0), answer;

    if (file < 0)
        return file;
    partition.first = (int64_t)first;
    partition.size = (int64_t)size;
    partition.number = (int32_t)number;
    answer = call(SYS_IOCTL, file, BLOCK_PARTITION, (long)&argument, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer;
}

static long size_of_disk(const char *disk, uint64_t *size)
{
    long file = open_file(disk, READ_ONLY, 0), answer;

    if (file < 0)
        return file;
    answer = call(SYS_IOCTL, file, BLOCK_SIZE, (long)size, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer;
}

long await_disk(const char *disk, uint64_t size)
{
    enum { TRIES = 140, SHORT = 100000, LONG = 100000000 };
    int64_t pause[2] = {0, SHORT};

    /* They are counted, for the clock may be put forward: in each of the pauses the kernel has the processor. */
    for (uint32_t tries = 0; tries < TRIES; tries++) {
        uint64_t found = 0;
        long answer = size_of_disk(disk, &found);
        if (answer < 0 || found >= size)
            return answer;
        call(SYS_CLOCK_NANOSLEEP64, MONOTONIC, 0, (long)pause, 0, 0);
        pause[1] = pause[1] < LONG ? pause[1] * 2 : LONG;
    }
    return -ENOMEDIUM;
}

long pivot_root(const char *root, int *old_root)
{
    long old = open_file("/", READ_ONLY | DIRECTORY, 0), answer = call(SYS_CHDIR, (long)root, 0, 0, 0, 0);

    if (old < 0)
        return old;
    if (answer >= 0)
        answer = call(SYS_PIVOT_ROOT, (long)".", (long)".", 0, 0, 0);
    if (answer >= 0)
        answer = call(SYS_FCHDIR, old, 0, 0, 0, 0);
    *old_root = (int)old;
    return answer;
}

long detach_root(int *old_root)
{
    long answer = call(SYS_FCHDIR, *old_root, 0, 0, 0, 0);

    if (answer >= 0)
        answer = call(SYS_UMOUNT2, (long)".", UNMOUNT_DETACH, 0, 0, 0);
    close_file(old_root);
    return answer < 0 ? answer : call(SYS_CHDIR, (long)"/", 0, 0, 0, 0);
}
