/*
 * What the agent has instead of a C library: the system calls of Linux on ARM, and a few functions on memory and text.
 *
 * System calls return 0 or more, or a negative error number.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdint.h>

enum {
    SYS_FORK = 2, SYS_READ = 3, SYS_WRITE = 4, SYS_OPEN = 5, SYS_CLOSE = 6, SYS_UNLINK = 10, SYS_EXECVE = 11,
    SYS_CHDIR = 12, SYS_GETPID = 20, SYS_MOUNT = 21, SYS_SYNC = 36, SYS_KILL = 37, SYS_MKDIR = 39, SYS_UMOUNT2 = 52,
    SYS_IOCTL = 54, SYS_SETPGID = 57, SYS_UMASK = 60, SYS_CHROOT = 61, SYS_DUP2 = 63, SYS_SETSID = 66,
    SYS_SETHOSTNAME = 74, SYS_SYMLINK = 83, SYS_REBOOT = 88, SYS_MUNMAP = 91, SYS_FCHMOD = 94, SYS_WAIT4 = 114,
    SYS_CLONE = 120, SYS_FCHDIR = 133, SYS_LLSEEK = 140, SYS_PRCTL = 172, SYS_RT_SIGPROCMASK = 175, SYS_MMAP2 = 192,
    SYS_FTRUNCATE64 = 194, SYS_SETGROUPS = 206, SYS_FCHOWN = 207, SYS_SETUID = 213, SYS_SETGID = 214, SYS_GETDENTS64 = 217,
    SYS_PIVOT_ROOT = 218, SYS_FCNTL = 221, SYS_LSETXATTR = 227, SYS_LGETXATTR = 230, SYS_LLISTXATTR = 233,
    SYS_EXIT_GROUP = 248, SYS_SOCKET = 281, SYS_BIND = 282, SYS_LISTEN = 284, SYS_SENDTO = 290, SYS_RECVFROM = 292,
    SYS_SETSOCKOPT = 294, SYS_OPENAT = 322, SYS_MKDIRAT = 323, SYS_MKNODAT = 324, SYS_FCHOWNAT = 325, SYS_UNLINKAT = 328,
    SYS_LINKAT = 330, SYS_SYMLINKAT = 331, SYS_READLINKAT = 332, SYS_FCHMODAT = 333, SYS_UNSHARE = 337,
    SYS_SIGNALFD4 = 355, SYS_PIPE2 = 359, SYS_ACCEPT4 = 366, SYS_PRLIMIT64 = 369, SYS_SETNS = 375, SYS_STATX = 397, SYS_CLOCK_GETTIME64 = 403,
    SYS_CLOCK_SETTIME64 = 404, SYS_CLOCK_NANOSLEEP64 = 407, SYS_UTIMENSAT64 = 412, SYS_PPOLL64 = 414,
    SYS_FINIT_MODULE = 379, SYS_BPF = 386, SYS_RT_SIGTIMEDWAIT64 = 421, SYS_CLOSE_RANGE = 436,
};
enum { READ_ONLY = 0, WRITE_ONLY = 1, READ_WRITE = 2, CREATE = 0100, EXCLUSIVE = 0200, NO_TERMINAL = 0400 };
enum { TRUNCATE = 01000, NONBLOCK = 04000, DIRECTORY = 040000, NO_FOLLOW = 0100000, CLOSE_ON_EXEC = 02000000 };
enum { PATH_ONLY = 010000000, SET_FLAGS = 4 };
enum { AT_HERE = -100, AT_NO_FOLLOW = 0x100, AT_REMOVE_DIRECTORY = 0x200 };
enum { POLL_IN = 1, POLL_OUT = 4, POLL_ERROR = 8, POLL_HANG_UP = 16 };
enum { MONOTONIC = 1, SIGKILL = 9, SIGCHLD = 17, SIG_BLOCK = 0, SIG_SETMASK = 2, WAIT_NO_HANG = 1 };
enum {
    ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, E2BIG = 7, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EEXIST = 17, ENOTDIR = 20,
    EISDIR = 21, EINVAL = 22, EFBIG = 27, ENAMETOOLONG = 36, EOPNOTSUPP = 95, ENOMEDIUM = 123,
};
enum { /* of the mode of a file */
    MODE_KIND = 0170000, MODE_FIFO = 0010000, MODE_CHARACTER = 0020000, MODE_DIRECTORY = 0040000, MODE_BLOCK = 0060000,
    MODE_FILE = 0100000, MODE_LINK = 0120000, MODE_SOCKET = 0140000,
};
enum { PATH_MOST = 4096 };

/* struct statx, as far as it is used */
struct status {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, unused;
    uint64_t inode, size, blocks, attributes_mask;
    struct {
        int64_t seconds;
        uint32_t nanoseconds;
        int32_t unused;
    } accessed, born, changed, modified;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t rest[14];
};

struct poll {
    int fd;
    int16_t events, got;
};

long call(long number, long a, long b, long c, long d, long e);
long call6(long number, long a, long b, long c, long d, long e, long f);

void *memcpy(void *to, const void *from, unsigned size); /* it goes upwards: bytes may move down within a buffer */
void *memset(void *to, int value, unsigned size);
int compare(const void *one, const void *other, uint32_t size); /* 0 if they are equal */
uint32_t length(const char *text);
int is_same(const char *one, const char *other);
int begins_with(const char *text, const char *prefix);
/* Put texts one behind the other into a buffer. Returns 0, or -ENAMETOOLONG if they do not fit. */
long join(char *to, uint32_t size, const char *first, const char *second, const char *third);
uint32_t number(const uint8_t *at); /* four bytes, little-endian */
/* Write a number, and a zero byte. Returns where that is. */
char *write_decimal(char *at, uint64_t value);
/* Read a number without a sign. Returns how many characters it has, or 0 if there is none below 2^32. */
uint32_t read_decimal(const char *text, uint32_t *value);

long write_all(int file, const void *data, uint32_t size); /* 0, or an error number */
/* Read until there is nothing more, or the buffer is full. Returns the bytes. */
long read_all(int file, void *data, uint32_t size);
long open_file(const char *path, int flags, int mode);
long status_at(int directory, const char *path, int flags, struct status *status);
void *allocate(uint32_t size); /* zeros, or 0 without memory; they are touched by the first use */
void close_file(int *file); /* unless it is -1, which it becomes */
void exit_with(int status) __attribute__((noreturn));
void power_off(void) __attribute__((noreturn));

#endif
