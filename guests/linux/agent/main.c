/*
 * The first process of the Linux guest that runs programs for dbt: it does what it is asked at a port of the virtio
 * console, such as /dev/vport0p0, and reports there what becomes of it.
 *
 * A static program without a C library.
 */
#include "devices.h"
#include "files.h"
#include "frames.h"
#include "modules.h"
#include "network.h"
#include "polling.h"
#include "session.h"
#include "system.h"

enum { MOUNT_REMOUNT = 32, MOUNT_NO_ATIME = 1024 };

static int children;
static int is_last; /* The guest ends when there is no session any more. */

/* End the guest: what runs is killed, and the file systems of a container are unmounted. */
static __attribute__((noreturn)) void end_guest(void)
{
    int status;

    call(SYS_KILL, -1, SIGKILL, 0, 0, 0);
    while (call(SYS_WAIT4, -1, (long)&status, 0, 0, 0) > 0)
        ;
    /* What is written now need not survive a failure of the host, which nobody has asked for. */
    call(SYS_MOUNT, (long)"", (long)"/container/disk", (long)"", MOUNT_REMOUNT | MOUNT_NO_ATIME, (long)"barrier=0");
    call(SYS_UMOUNT2, (long)"/container/root", 0, 0, 0, 0);
    call(SYS_UMOUNT2, (long)"/container/disk", 0, 0, 0, 0);
    call(SYS_SYNC, 0, 0, 0, 0, 0);
    send(FINISHED, 0, 0, 0); /* The host need not wait for the rest. */
    power_off();
}

void obey(const struct header *frame, const uint8_t *data)
{
    if (frame->kind == FINISH && frame->stream)
        end_guest();
    else if (frame->kind == FINISH)
        is_last = 1;
    else if (frame->kind == SYNC) {
        forget_questions();
        send_sessions(data, frame->size);
    } else if (frame->kind == NAMES)
        open_names();
    else if (frame->kind == ANSWER)
        answer_question(frame->session, data, frame->size);
    else
        obey_session(frame, data);
}

static __attribute__((noreturn)) void serve(void)
{
    for (;;) {
        watch_nothing();
        watch(port, POLL_IN);
        watch(children, POLL_IN);
        watch_sessions();
        watch_names();
        if (is_last && !sessions_in_use())
            power_off();
        if (wait_for_any() < 0)
            continue;
        serve_sessions();
        serve_names();
        if (has(children, POLL_IN)) {
            uint8_t which[128]; /* struct signalfd_siginfo; several signals may have become one */
            call(SYS_READ, children, (long)which, sizeof which, 0, 0);
            bury();
        }
        if (has(port, POLL_IN))
            receive();
    }
}

static void mount_system(const char *type, const char *path, const char *options)
{
    call(SYS_MKDIR, (long)path, 0755, 0, 0, 0);
    call(SYS_MOUNT, (long)type, (long)path, (long)type, 0, (long)options);
}

/* Have a root directory that is no initial RAM file system: of that one, pivot_root(2) makes no other. */
static void leave_initial_root(void)
{
    enum { MOVE = 8192 };

    mount_system("tmpfs", "/root", "mode=755");
    call(SYS_CHDIR, (long)"/root", 0, 0, 0, 0);
    call(SYS_MOUNT, (long)".", (long)"/", 0, MOVE, 0);
    call(SYS_CHROOT, (long)".", 0, 0, 0, 0);
    call(SYS_CHDIR, (long)"/", 0, 0, 0, 0);
}

/* Make the control group of a container, in which its limits are set. */
static void make_control_group(void)
{
    static const uint8_t controllers[] = "+cpu +memory +pids +io";

    mount_system("cgroup2", "/sys/fs/cgroup", "");
    write_file("/sys/fs/cgroup/cgroup.subtree_control", 0, controllers, sizeof controllers - 1);
    call(SYS_MKDIR, (long)CONTROL_GROUP, 0755, 0, 0, 0);
    if (allow_few_devices() < 0)
        power_off();
}

int main(void)
{
    uint64_t child = 1ull << (SIGCHLD - 1);

    load_modules();
    leave_initial_root();
    mount_system("proc", "/proc", "");
    mount_system("sysfs", "/sys", "");
    mount_system("devtmpfs", "/dev", "");
    mount_system("devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666");
    mount_system("tmpfs", "/dev/shm", "");
    mount_system("mqueue", "/dev/mqueue", "");
    make_control_group();
    raise_loopback();
    hide_cards();
    call(SYS_RT_SIGPROCMASK, SIG_BLOCK, (long)&child, 0, 8, 0);
    children = (int)call(SYS_SIGNALFD4, -1, (long)&child, 8, NONBLOCK | CLOSE_ON_EXEC, 0);
    open_port();
    send(READY, 0, 0, 0);
    serve();
}

__attribute__((naked, noreturn)) void _start(void)
{
    __asm__("bl main");
}
