#include "processes.h"
#include "system.h"

enum { CLONE_PARENT = 0x8000, DROP_BOUND = 24, GET_BOUND = 23, CAPABILITIES = 64 };
enum { SET_CONTROLLING = 0x540e, SET_FOREGROUND = 0x5410 };

long enter_namespaces(uint32_t pid, uint32_t kinds)
{
    static const struct {
        uint32_t kind;
        const char *name;
    } all[] = {
        {0x02000000, "cgroup"}, {0x08000000, "ipc"}, {0x04000000, "uts"}, {0x20000000, "pid"}, {0x00020000, "mnt"},
    };
    int files[5];
    char path[64], digits[24];
    long answer = 0;

    write_decimal(digits, pid);
    for (uint32_t at = 0; at < 5; at++) {
        files[at] = -1;
        if (!(kinds & all[at].kind))
            continue;
        join(path, sizeof path, "/proc/", digits, "/ns/");
        join(path, sizeof path, path, all[at].name, "");
        files[at] = (int)open_file(path, READ_ONLY, 0);
        if (files[at] < 0)
            return files[at];
    }
    for (uint32_t at = 0; at < 5 && answer >= 0; at++)
        if (files[at] >= 0)
            answer = call(SYS_SETNS, files[at], (long)all[at].kind, 0, 0, 0);
    for (uint32_t at = 0; at < 5; at++)
        close_file(&files[at]);
    return answer;
}

void lead_session(const struct carrier *carrier)
{
    call(SYS_SETSID, 0, 0, 0, 0, 0);
    if (carrier->terminal)
        call(SYS_IOCTL, 0, SET_CONTROLLING, 0, 0, 0);
}

long fork_into(const struct carrier *carrier)
{
    int gate[2];
    uint8_t nothing;
    long pid = call(SYS_PIPE2, (long)gate, CLOSE_ON_EXEC, 0, 0, 0);

    if (pid < 0)
        return pid;
    pid = call(SYS_CLONE, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    struct failure going_on = {0, ITEM_FORK, (uint32_t)pid};

    if (pid == 0) { /* It cannot end before it is known who goes on: it waits for the end of this process. */
        close_file(&gate[1]);
        while (call(SYS_READ, gate[0], (long)&nothing, 1, 0, 0) == -EINTR)
            ;
        close_file(&gate[0]);
        lead_session(carrier);
    }
    if (pid <= 0)
        return pid;
    call(SYS_WRITE, carrier->report, (long)&going_on, sizeof going_on, 0, 0);
    exit_with(0);
}

long bound_capabilities(uint64_t kept)
{
    for (int which = 0; which < CAPABILITIES; which++)
        if (!(kept >> which & 1) && call(SYS_PRCTL, GET_BOUND, which, 0, 0, 0) >= 0) {
            long answer = call(SYS_PRCTL, DROP_BOUND, which, 0, 0, 0);
            if (answer < 0)
                return answer;
        }
    return 0;
}

/* -- PID 1 ----------------------------------------------------------------------------------- */

static int status_as_shell(int status)
{
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

long stay_as_init(void)
{
    uint64_t all = ~0ull;
    long child, ended;
    int status;

    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (long)&all, 0, 8, 0);
    child = call(SYS_FORK, 0, 0, 0, 0, 0);
    if (child == 0) {
        uint64_t none = 0;
        call(SYS_SETPGID, 0, 0, 0, 0, 0);
        uint32_t group = (uint32_t)call(SYS_GETPID, 0, 0, 0, 0, 0);
        call(SYS_IOCTL, 0, SET_FOREGROUND, (long)&group, 0, 0); /* if there is a terminal; SIGTTOU is blocked */
        call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (long)&none, 0, 8, 0);
        return 0;
    }
    if (child < 0)
        return child;
    call(SYS_CLOSE_RANGE, 0, -1, 0, 0, 0); /* among them what tells the agent that the program has been executed */
    for (;;) {
        long number = call(SYS_RT_SIGTIMEDWAIT64, (long)&all, 0, 0, 8, 0);
        if (number > 0 && number != SIGCHLD)
            call(SYS_KILL, child, number, 0, 0, 0);
        while ((ended = call(SYS_WAIT4, -1, (long)&status, WAIT_NO_HANG, 0, 0)) > 0)
            if (ended == child)
                exit_with(status_as_shell(status));
    }
}
