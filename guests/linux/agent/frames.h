/*
 * What the host and the agent say to each other. Both directions carry frames: a kind (1 byte), a stream (1 byte), the
 * number of a session (2 bytes), the size of what follows (4 bytes, at most FRAME_MOST), and that. Numbers are
 * little-endian. dbt/linux/protocol.py is the other end.
 */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

#define FRAME_MOST 32768

enum { PREPARE = 1, START, INPUT, SIGNAL, RESIZE, FINISH, CREDIT, SYNC, NAMES, ANSWER };  /* frames from the host */
enum { READY = 1, STARTED, OUTPUT, TAKEN, ENDED, FAILED, SYNCED, FINISHED, ASKED };  /* frames to the host */

struct header {
    uint8_t kind, stream;
    uint16_t session;
    uint32_t size;
};

struct outbox {
    struct header header;
    uint8_t data[FRAME_MOST];
};

/* The value of the frame that is sent next. */
extern struct outbox outbox;
/* The port to the host. */
extern int port;

/* Open the port. The kernel makes it a moment after it has found the console. */
void open_port(void);
/* Send a frame, whose value is in the outbox. */
void send(uint8_t kind, uint8_t stream, uint32_t session, uint32_t size);
void send_number(uint8_t kind, uint32_t session, uint32_t value);
/* Read what has come from the host, and give what is complete to obey(). The guest ends at what is no frame. */
void receive(void);
/* Do what a frame says (main.c). */
void obey(const struct header *frame, const uint8_t *data);

#endif
