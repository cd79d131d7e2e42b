#include "frames.h"
#include "network.h"
#include "polling.h"
#include "system.h"

#define QUESTION_MOST 512 /* RFC 1035, 4.2.1: the largest datagram */
#define QUESTIONS 64      /* that are on their way at once, by datagrams; then there are those of connections */
#define CONNECTIONS 4
#define PATIENCE 60       /* seconds after which a question without an answer is given up */

enum { INTERNET = 2, STREAM = 1, DATAGRAMS = 2, SOCKET_LEVEL = 1, REUSE_ADDRESS = 2, NO_SIGNAL = 0x4000 };

struct name_address { /* struct sockaddr_in */
    uint16_t family, port;
    uint32_t address;
    uint8_t rest[8];
};

static struct {
    struct name_address from;
    uint16_t id;      /* the question's own, which its answer has too */
    int64_t deadline; /* 0: there is no question */
} questions[QUESTIONS];

static struct {
    int file;
    uint32_t bytes;
    int is_asked; /* its question is on its way */
    uint8_t data[2 + QUESTION_MOST];
} connections[CONNECTIONS];

static int datagrams = -1, listener = -1;

static int64_t now(void)
{
    int64_t time[2] = {0, 0};

    call(SYS_CLOCK_GETTIME64, MONOTONIC, (long)time, 0, 0, 0);
    return time[0];
}

static int open_socket(int kind)
{
    const struct name_address address = {INTERNET, 0x3500, 0x0b00007f, {0}}; /* 127.0.0.11, port 53 */
    int yes = 1;
    int file = (int)call(SYS_SOCKET, INTERNET, kind | NONBLOCK | CLOSE_ON_EXEC, 0, 0, 0);

    call(SYS_SETSOCKOPT, file, SOCKET_LEVEL, REUSE_ADDRESS, (long)&yes, sizeof yes);
    if (file >= 0 && call(SYS_BIND, file, (long)&address, sizeof address, 0, 0) < 0)
        close_file(&file);
    return file;
}

void open_names(void)
{
    if (datagrams >= 0)
        return;
    for (uint32_t which = 0; which < CONNECTIONS; which++)
        connections[which].file = -1;
    datagrams = open_socket(DATAGRAMS);
    listener = open_socket(STREAM);
    if (listener >= 0)
        call(SYS_LISTEN, listener, CONNECTIONS, 0, 0, 0);
}

void forget_questions(void)
{
    for (uint32_t which = 0; which < QUESTIONS; which++)
        questions[which].deadline = 0;
    for (uint32_t which = 0; which < CONNECTIONS && datagrams >= 0; which++)
        if (connections[which].is_asked)
            close_file(&connections[which].file);
}

/* A number that no question has, or QUESTIONS. */
static uint32_t free_question(void)
{
    int64_t time = now();

    for (uint32_t which = 0; which < QUESTIONS; which++)
        if (questions[which].deadline < time)
            return which;
    return QUESTIONS;
}

static void take_datagram(uint32_t which)
{
    uint32_t size = sizeof questions[which].from;
    long got = call6(SYS_RECVFROM, datagrams, (long)outbox.data, QUESTION_MOST, 0, (long)&questions[which].from,
                     (long)&size);

    if (got < 12) /* the size of a header */
        return;
    questions[which].id = (uint16_t)(outbox.data[0] | outbox.data[1] << 8);
    questions[which].deadline = now() + PATIENCE;
    send(ASKED, 0, which, (uint32_t)got);
}

/* Read what a connection brings: two bytes with the size of a question, and that. */
static void take_stream(uint32_t which)
{
    uint8_t *data = connections[which].data;
    uint32_t size, bytes = connections[which].bytes;
    long got = call(SYS_READ, connections[which].file, (long)(data + bytes), (long)(2 + QUESTION_MOST - bytes), 0, 0);

    if (got == -EAGAIN || got == -EINTR)
        return;
    connections[which].bytes = bytes += got > 0 ? (uint32_t)got : 0;
    size = bytes < 2 ? 0 : (uint32_t)(data[0] << 8 | data[1]);
    if (got <= 0 || (bytes >= 2 && (size < 12 || size > QUESTION_MOST))) {
        close_file(&connections[which].file);
    } else if (bytes >= 2 && bytes >= 2 + size) {
        memcpy(outbox.data, data + 2, size);
        connections[which].bytes = bytes - 2 - size;
        memcpy(data, data + 2 + size, connections[which].bytes);
        connections[which].is_asked = 1;
        send(ASKED, 1, QUESTIONS + which, size);
    }
}

static void take_connection(void)
{
    for (uint32_t which = 0; which < CONNECTIONS; which++)
        if (connections[which].file < 0) {
            connections[which].file = (int)call(SYS_ACCEPT4, listener, 0, 0, NONBLOCK | CLOSE_ON_EXEC, 0);
            connections[which].bytes = 0;
            connections[which].is_asked = 0;
            return;
        }
}

static void answer_stream(uint32_t which, const uint8_t *answer, uint32_t size)
{
    uint8_t *message = outbox.data; /* which is not used now */

    if (which >= CONNECTIONS || connections[which].file < 0 || !connections[which].is_asked)
        return;
    connections[which].is_asked = 0;
    if (size && size <= FRAME_MOST - 2) {
        message[0] = (uint8_t)(size >> 8);
        message[1] = (uint8_t)size;
        memcpy(message + 2, answer, size);
        /* Who does not read what has room in an empty socket does not get it. */
        if (call6(SYS_SENDTO, connections[which].file, (long)message, (long)(size + 2), NO_SIGNAL, 0, 0) ==
            (long)size + 2)
            return;
    }
    close_file(&connections[which].file);
}

void answer_question(uint32_t which, const uint8_t *answer, uint32_t size)
{
    if (datagrams < 0)
        return;
    if (which >= QUESTIONS) {
        answer_stream(which - QUESTIONS, answer, size);
        return;
    }
    if (questions[which].deadline && size >= 2 && (answer[0] | answer[1] << 8) == questions[which].id)
        call6(SYS_SENDTO, datagrams, (long)answer, (long)size, 0, (long)&questions[which].from,
              sizeof questions[which].from);
    questions[which].deadline = 0;
}

void watch_names(void)
{
    uint32_t open = 0;

    if (datagrams < 0)
        return;
    if (free_question() < QUESTIONS) /* else the kernel keeps a few, and loses the rest */
        watch(datagrams, POLL_IN);
    for (uint32_t which = 0; which < CONNECTIONS; which++) {
        open += connections[which].file >= 0;
        if (!connections[which].is_asked)
            watch(connections[which].file, POLL_IN);
    }
    if (open < CONNECTIONS)
        watch(listener, POLL_IN);
}

void serve_names(void)
{
    uint32_t which;

    if (datagrams < 0)
        return;
    if (has(datagrams, POLL_IN) && (which = free_question()) < QUESTIONS)
        take_datagram(which);
    for (which = 0; which < CONNECTIONS; which++)
        if (connections[which].file >= 0 && !connections[which].is_asked && has(connections[which].file, POLL_IN))
            take_stream(which);
    if (has(listener, POLL_IN))
        take_connection();
}
