/* System calls: SVC 0 with the number in r7, arguments in r0 to r2, the result in r0. -1 means that it cannot be. */
#ifndef SYSCALLS_H
#define SYSCALLS_H

enum {
    SYS_EXIT,      /* exit(status) */
    SYS_WRITE,     /* write(text, length): to the console */
    SYS_YIELD,     /* yield(): others first */
    SYS_FORK,      /* fork(): 0 in the child, its process identifier in the parent */
    SYS_EXEC,      /* exec(name, argument): from now on another program */
    SYS_WAIT,      /* wait(pid, &status): until that child ends; its pid */
    SYS_GETPID,    /* getpid() */
    SYS_BRK,       /* brk(end): where the heap ends, moved there unless 0 */
    SYS_SLEEP,     /* sleep(ticks): at least so long */
    SYS_TIME,      /* time(): ticks since the start */
    SYS_LIMIT,     /* limit(ticks): killed after so many of its own */
    SYS_PREEMPTED, /* preempted(): how often the timer has interrupted this process */
    SYS_SYNC,      /* sync(): what was written may be executed */
    SYS_NOTIFY,    /* notify(): an interrupt; how many there were. For the benchmark alone */
    SYS_EVENTS,    /* events(n): so many that the kernel sends itself; how many it has taken. Likewise */
};

#define KILLED (-1000) /* the status of a process that the kernel has killed */

#endif
