#include "session.h"
#include "polling.h"
#include "processes.h"
#include "request.h"
#include "system.h"

#define SESSIONS 64
#define SIGN_MOST 256
#define NO_STATUS 0xffffffffu
#define CREDIT_MOST (1u << 24)
#define INPUT_MOST 65536 /* what the host sends of a session's input before some of it is taken */

enum { GET_PTY_NUMBER = 0x80045430, UNLOCK_PTY = 0x40045431, SET_WINDOW = 0x5414 };

struct session {
    int used, pid;           /* pid is 0 until the program is started */
    int report;              /* where its process tells what has gone wrong, until it executes the program; or -1 */
    int input, output[2];    /* ends of pipes, or -1; with a terminal, all of them are its other side */
    int is_terminal, input_ended;
    int has_ended, status;   /* of its process; what it has written may still have to be sent */
    int has_window;          /* whether the host says how much may be sent */
    uint32_t credit;         /* bytes of output that may be sent */
    uint32_t pending_bytes;
    uint8_t *pending;
    struct request request;
};

/* What the host is told of a session when it asks. */
struct summary {
    uint16_t number;
    uint8_t is_terminal, has_window;
    uint32_t pid, credit, pending_bytes;
};

static struct session sessions[SESSIONS];
static uint32_t first_status = NO_STATUS; /* of the first session, once it has ended */

static void end_session(struct session *one)
{
    close_file(&one->report);
    close_file(&one->input);
    for (int stream = 0; stream < 2; stream++)
        if (one->output[stream] != one->input)
            close_file(&one->output[stream]);
    call(SYS_MUNMAP, (long)one->request.items, REQUEST_MOST + INPUT_MOST, 0, 0, 0);
    one->used = 0;
}

/* -- streams --------------------------------------------------------------------------------- */

static void set_window(int file, const uint8_t *value)
{
    uint16_t window[4] = {(uint16_t)(value[0] | value[1] << 8), (uint16_t)(value[2] | value[3] << 8), 0, 0};

    call(SYS_IOCTL, file, SET_WINDOW, (long)window, 0, 0);
}

/* The path of the terminal that was opened last. */
static char terminal_path[32];

/* Open a terminal: `*ours` is the side of who shows it, and `*theirs` the program's. */
static long open_terminal(int *ours, int *theirs, const uint8_t *size)
{
    char digits[24];
    uint32_t which = 0, unlocked = 0;

    *ours = (int)call(SYS_OPEN, (long)"/dev/ptmx", READ_WRITE | NO_TERMINAL | CLOSE_ON_EXEC, 0, 0, 0);
    if (*ours < 0)
        return *ours;
    call(SYS_IOCTL, *ours, UNLOCK_PTY, (long)&unlocked, 0, 0);
    call(SYS_IOCTL, *ours, GET_PTY_NUMBER, (long)&which, 0, 0);
    write_decimal(digits, which);
    join(terminal_path, sizeof terminal_path, "/dev/pts/", digits, "");
    *theirs = (int)call(SYS_OPEN, (long)terminal_path, READ_WRITE | NO_TERMINAL | CLOSE_ON_EXEC, 0, 0, 0);
    if (*theirs >= 0)
        set_window(*ours, size);
    return *theirs;
}

/* Make the streams of a session. `streams` are the program's. */
static long open_streams(struct session *one, int streams[3])
{
    uint8_t *size = find_item(&one->request, ITEM_TERMINAL);
    int ends[3][2];
    long answer = 0;

    one->is_terminal = size != 0;
    if (size) {
        answer = open_terminal(&one->input, &streams[0], size);
        streams[1] = streams[2] = streams[0];
        one->output[0] = one->input;
        return answer;
    }
    for (int stream = 0; stream < 3 && answer >= 0; stream++)
        answer = call(SYS_PIPE2, (long)ends[stream], CLOSE_ON_EXEC, 0, 0, 0);
    if (answer < 0)
        return answer;
    one->input = ends[0][1];
    streams[0] = ends[0][0];
    for (int stream = 1; stream < 3; stream++) {
        one->output[stream - 1] = ends[stream][0];
        streams[stream] = ends[stream][1];
    }
    return answer;
}

/* Let reads and writes of our ends return at once. */
static void set_nonblocking(struct session *one)
{
    call(SYS_FCNTL, one->input, SET_FLAGS, NONBLOCK | (one->is_terminal ? READ_WRITE : WRITE_ONLY), 0, 0);
    for (int stream = 0; stream < 2 && !one->is_terminal; stream++)
        call(SYS_FCNTL, one->output[stream], SET_FLAGS, NONBLOCK, 0, 0);
}

/* -- a session's life ------------------------------------------------------------------------ */

static __attribute__((noreturn)) void run(const struct session *one, const int streams[3], int report)
{
    struct carrier carrier = {&one->request, one->is_terminal ? terminal_path : 0, report, -1, 0, 0};
    uint64_t none = 0;

    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (long)&none, 0, 8, 0);
    for (int stream = 0; stream < 3; stream++)
        call(SYS_DUP2, streams[stream], stream, 0, 0, 0);
    if (!find_item(&one->request, ITEM_FORK)) /* else the process that goes on does it */
        lead_session(&carrier);
    become(&carrier);
}

static void fail_session(uint32_t which, const struct failure *found)
{
    memcpy(outbox.data, found, sizeof *found);
    send(FAILED, 0, which, sizeof *found);
    end_session(&sessions[which]);
}

static void start(uint32_t which)
{
    struct session *one = &sessions[which];
    struct failure found = {0, ITEM_PROGRAM, 0};
    int streams[3] = {-1, -1, -1}, report[2] = {-1, -1};
    uint8_t *window = find_item(&one->request, ITEM_WINDOW);
    long answer = open_streams(one, streams);

    one->has_window = window != 0;
    one->credit = window ? number(window) : 0;
    if (answer >= 0)
        answer = call(SYS_PIPE2, (long)report, CLOSE_ON_EXEC, 0, 0, 0);
    if (answer >= 0)
        answer = one->pid = (int)call(SYS_FORK, 0, 0, 0, 0, 0);
    if (answer == 0)
        run(one, streams, report[1]);
    for (int stream = 0; stream < (one->is_terminal ? 1 : 3); stream++)
        close_file(&streams[stream]);
    close_file(&report[1]);
    one->report = report[0];
    if (answer > 0) {
        set_nonblocking(one);
    } else {
        found.error = (int32_t)-answer;
        fail_session(which, &found);
    }
}

/* Hear that a session's process has forked, has failed, or executes its program. */
static void hear(uint32_t which)
{
    struct session *one = &sessions[which];
    struct failure found;
    long got = call(SYS_READ, one->report, (long)&found, sizeof found, 0, 0);

    if (got == -EINTR)
        return;
    if (got == sizeof found && !found.error && found.tag == ITEM_FORK) {
        one->pid = (int)found.place;
        return;
    }
    close_file(&one->report);
    if (got == sizeof found)
        fail_session(which, &found);
    else
        send_number(STARTED, which, (uint32_t)one->pid);
}

/* How much output of a session may be sent now. */
static uint32_t room(const struct session *one)
{
    return one->has_window && one->credit < FRAME_MOST ? one->credit : FRAME_MOST;
}

/* Send what the program has written to a stream. Returns 0 if there is nothing now, and closes it at its end. */
static int relay(uint32_t which, int stream)
{
    struct session *one = &sessions[which];
    long got = call(SYS_READ, one->output[stream], (long)outbox.data, (long)room(one), 0, 0);

    if (got > 0) {
        one->credit -= one->has_window ? (uint32_t)got : 0;
        send(OUTPUT, (uint8_t)(stream + 1), which, (uint32_t)got);
        return 1;
    }
    if (got == -EAGAIN || got == -EINTR)
        return 0;
    if (one->is_terminal)  /* EIO: nobody has its other side open. */
        one->input = -1;
    close_file(&one->output[stream]);
    return 0;
}

/* Send what a program that has ended has written, as far as the host wants it now, and then how it has ended. */
static void conclude(uint32_t which)
{
    struct session *one = &sessions[which];

    for (int stream = 0; stream < 2; stream++)
        while (one->output[stream] >= 0) {
            if (!room(one))
                return;
            if (!relay(which, stream))
                break;
        }
    if (!which)
        first_status = (uint32_t)one->status;
    send_number(ENDED, which, (uint32_t)one->status);
    end_session(one);
}

/* Give the program what has come of its input, as far as it takes it now. */
static void feed(uint32_t which)
{
    struct session *one = &sessions[which];

    if (one->pending_bytes) {
        long done = call(SYS_WRITE, one->input, (long)one->pending, (long)one->pending_bytes, 0, 0);
        if (done == -EAGAIN || done == -EINTR)
            return;
        if (done < 0) {  /* It reads no more: the rest is lost, as in a broken pipe. */
            done = one->pending_bytes;
            one->input_ended = 1;
        }
        one->pending_bytes -= (uint32_t)done;
        memcpy(one->pending, one->pending + done, one->pending_bytes);
        send_number(TAKEN, which, (uint32_t)done);
    }
    if (!one->pending_bytes && one->input_ended && !one->is_terminal)
        close_file(&one->input);
}

void bury(void)
{
    int status;

    for (long pid; (pid = call(SYS_WAIT4, -1, (long)&status, WAIT_NO_HANG, 0, 0)) > 0;) {
        for (uint32_t which = 0; which < SESSIONS; which++) /* so that it is known whose process has ended */
            while (sessions[which].used && sessions[which].report >= 0 && is_readable(sessions[which].report))
                hear(which);
        for (uint32_t which = 0; which < SESSIONS; which++) {
            struct session *one = &sessions[which];
            if (one->used && one->pid == pid && !one->has_ended) {
                one->has_ended = 1;
                one->status = status;
                if (one->report < 0)
                    conclude(which);
            }
        }
    }
}

/* -- what the host says ---------------------------------------------------------------------- */

static void prepare(uint32_t which, const uint8_t *data, uint32_t size)
{
    struct session *one = &sessions[which];

    if (!one->used) {
        long memory = call(SYS_MMAP2, 0, REQUEST_MOST + INPUT_MOST, 3, 0x22, -1);
        if (memory < 0 && memory > -4096)
            return;
        *one = (struct session){.used = 1, .report = -1, .input = -1, .output = {-1, -1}};
        one->request.items = (uint8_t *)memory;
        one->pending = one->request.items + REQUEST_MOST;
    }
    if (size <= REQUEST_MOST - one->request.size) {
        memcpy(one->request.items + one->request.size, data, size);
        one->request.size += size;
    }
}

static void take_input(uint32_t which, const uint8_t *data, uint32_t size)
{
    struct session *one = &sessions[which];

    if (!size)
        one->input_ended = 1;
    else if (one->input < 0 || one->input_ended)
        send_number(TAKEN, which, size);
    else if (size <= INPUT_MOST - one->pending_bytes) {
        memcpy(one->pending + one->pending_bytes, data, size);
        one->pending_bytes += size;
    }
    if (one->input >= 0)
        feed(which);
}

static void add_credit(uint32_t which, uint32_t bytes)
{
    struct session *one = &sessions[which];

    one->credit = bytes > CREDIT_MOST - one->credit ? CREDIT_MOST : one->credit + bytes;
    if (one->has_ended && one->report < 0)
        conclude(which);
}

void send_sessions(const uint8_t *sign, uint32_t size)
{
    uint32_t at = size < SIGN_MOST ? size : SIGN_MOST;

    memcpy(outbox.data, sign, at);
    memcpy(outbox.data + at, &first_status, sizeof first_status);
    at += sizeof first_status;
    for (uint32_t which = 0; which < SESSIONS; which++) {
        const struct session *one = &sessions[which];
        struct summary summary = {(uint16_t)which, (uint8_t)one->is_terminal, (uint8_t)one->has_window,
                                  (uint32_t)one->pid, one->credit, one->pending_bytes};
        if (!one->used || !one->pid)
            continue;
        memcpy(outbox.data + at, &summary, sizeof summary);
        at += sizeof summary;
    }
    send(SYNCED, 0, 0, at);
}

void obey_session(const struct header *frame, const uint8_t *data)
{
    uint32_t which = frame->session;
    struct session *one = &sessions[which];

    if (which >= SESSIONS)
        return;
    if (frame->kind == PREPARE)
        prepare(which, data, frame->size);
    else if (!one->used)
        return;  /* It has ended meanwhile. */
    else if (frame->kind == START && !one->pid)
        start(which);
    else if (frame->kind == INPUT)
        take_input(which, data, frame->size);
    else if (frame->kind == CREDIT && frame->size == 4)
        add_credit(which, number(data));
    else if (frame->kind == SIGNAL && one->pid && !one->has_ended && frame->size == 4) /* to its group, or it alone */
        call(SYS_KILL, frame->stream ? one->pid : -one->pid, (long)number(data), 0, 0, 0);
    else if (frame->kind == RESIZE && one->is_terminal && one->input >= 0 && frame->size == 4)
        set_window(one->input, data);
}

/* -- the loop -------------------------------------------------------------------------------- */

uint32_t sessions_in_use(void)
{
    uint32_t used = 0;

    for (uint32_t which = 0; which < SESSIONS; which++)
        used += (uint32_t)sessions[which].used;
    return used;
}

void watch_sessions(void)
{
    for (struct session *one = sessions; one < sessions + SESSIONS; one++) {
        if (!one->used || !one->pid)
            continue;
        watch(one->report, POLL_IN);
        if (one->pending_bytes)
            watch(one->input, POLL_OUT);
        for (int stream = 0; stream < 2; stream++)
            if (room(one))
                watch(one->output[stream], POLL_IN);
    }
}

void serve_sessions(void)
{
    for (uint32_t which = 0; which < SESSIONS; which++) {
        struct session *one = &sessions[which];
        if (!one->used || !one->pid)
            continue;
        if (one->report >= 0 && has(one->report, POLL_IN))
            hear(which);
        for (int stream = 0; stream < 2; stream++) /* what is written comes after STARTED */
            if (one->used && one->report < 0 && one->output[stream] >= 0 && room(one) &&
                has(one->output[stream], POLL_IN))
                relay(which, stream);
        if (one->used && one->pending_bytes && one->input >= 0 && has(one->input, POLL_OUT))
            feed(which);
        if (one->used && one->has_ended && one->report < 0)
            conclude(which);
    }
}
