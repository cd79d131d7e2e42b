/*
 * What the agent has instead of a C library: the system calls of Linux on ARM, and a few functions on memory and text.
 *
 * System calls return 0 or more, or a negative error number.
 */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdint.h>

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
enum { ENOENT = 2, EINTR = 4, EIO = 5, E2BIG = 7, EAGAIN = 11, ENOMEM = 12, EEXIST = 17, EINVAL = 22 };

struct poll {
    int fd;
    int16_t events, got;
};

long call(long number, long a, long b, long c, long d, long e);

void *memcpy(void *to, const void *from, unsigned size); /* it goes upwards: bytes may move down within a buffer */
void *memset(void *to, int value, unsigned size);
uint32_t length(const char *text);
uint32_t number(const uint8_t *at); /* four bytes, little-endian */
void write_decimal(char *at, uint32_t value); /* of a number below 1000 */

void write_all(int file, const uint8_t *data, uint32_t size);
void close_file(int *file); /* unless it is -1, which it becomes */
void exit_with(int status) __attribute__((noreturn));
void power_off(void) __attribute__((noreturn));

#endif
