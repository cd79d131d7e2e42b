/* What a program is given: system calls and print(). Its main() takes the argument of exec(), and returns its status. */
#ifndef MINIOS_H
#define MINIOS_H

#include "lib.h"
#include "syscalls.h"

static inline int system_call(int number, int a, int b)
{
    register int r0 asm("r0") = a;
    register int r1 asm("r1") = b;
    register int r7 asm("r7") = number;
    asm volatile("svc 0" : "+r"(r0) : "r"(r1), "r"(r7) : "memory");
    return r0;
}

static inline int write(const char *text, int length) { return system_call(SYS_WRITE, (int)text, length); }
static inline void yield(void) { system_call(SYS_YIELD, 0, 0); }
static inline int fork(void) { return system_call(SYS_FORK, 0, 0); }
static inline int exec(const char *name, int argument) { return system_call(SYS_EXEC, (int)name, argument); }
static inline int wait(int pid, int *status) { return system_call(SYS_WAIT, pid, (int)status); }
static inline int getpid(void) { return system_call(SYS_GETPID, 0, 0); }
static inline char *brk(char *end) { return (char *)system_call(SYS_BRK, (int)end, 0); }
static inline void sleep(int n) { system_call(SYS_SLEEP, n, 0); }
static inline int time(void) { return system_call(SYS_TIME, 0, 0); }
static inline void limit(int n) { system_call(SYS_LIMIT, n, 0); }
static inline int preempted(void) { return system_call(SYS_PREEMPTED, 0, 0); }
static inline unsigned notify(void) { return system_call(SYS_NOTIFY, 0, 0); }
static inline unsigned events(unsigned n) { return system_call(SYS_EVENTS, n, 0); }
static inline void sync(void) { system_call(SYS_SYNC, 0, 0); }

#define NO_MORE ((char *)-1) /* brk() has no memory there */

void exit(int status) __attribute__((noreturn));
int result(int pid);        /* waits for this child: its status */
int spawn(const char *name, int argument); /* fork() and exec(): the child */
void print(const char *text, ...);         /* see lib.h; at most 128 characters, which stay together */

static inline const char *yes(bool it_is) { return it_is ? "yes" : "no"; }

#endif
