#include "frames.h"
#include "system.h"

enum { VIRTIO_DEVICES = 32 };

struct outbox outbox;
int port;
static uint8_t inbox[sizeof(struct header) + FRAME_MOST];
static uint32_t inbox_bytes;

void open_port(void)
{
    char path[32], digits[24];
    int64_t pause[2] = {0, 10000000};

    for (int tries = 0; tries < 1000; tries++) {
        for (uint32_t device = 0; device < VIRTIO_DEVICES; device++) {
            write_decimal(digits, device);
            join(path, sizeof path, "/dev/vport", digits, "p0");
            port = (int)open_file(path, READ_WRITE, 0);
            if (port >= 0)
                return;
        }
        call(SYS_CLOCK_NANOSLEEP64, MONOTONIC, 0, (long)pause, 0, 0);
    }
    power_off();
}

void send(uint8_t kind, uint8_t stream, uint32_t session, uint32_t size)
{
    outbox.header = (struct header){kind, stream, (uint16_t)session, size};
    write_all(port, (const uint8_t *)&outbox, sizeof outbox.header + size);
}

void send_number(uint8_t kind, uint32_t session, uint32_t value)
{
    memcpy(outbox.data, &value, sizeof value);
    send(kind, 0, session, sizeof value);
}

void receive(void)
{
    long got = call(SYS_READ, port, (long)(inbox + inbox_bytes), (long)(sizeof inbox - inbox_bytes), 0, 0);
    uint32_t at = 0;

    if (got == -EINTR || got == -EAGAIN)
        return;
    if (got <= 0)
        power_off();
    inbox_bytes += (uint32_t)got;
    while (inbox_bytes - at >= sizeof(struct header)) {
        struct header frame;
        memcpy(&frame, inbox + at, sizeof frame);
        if (frame.size > FRAME_MOST)
            power_off();
        if (inbox_bytes - at - sizeof frame < frame.size)
            break;
        obey(&frame, inbox + at + sizeof frame);
        at += sizeof frame + frame.size;
    }
    inbox_bytes -= at;
    memcpy(inbox, inbox + at, inbox_bytes);
}
