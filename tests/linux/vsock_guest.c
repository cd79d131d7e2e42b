/* The guest's side of tests/linux/test_vsock_linux.py: connects to the host, and lets the host connect. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static unsigned char buffer[1 << 16];

/* A socket that waits for an answer for as long as a busy host may take. Linux gives up after 2 seconds otherwise. */
static int vsock(unsigned cid, unsigned port, struct sockaddr_vm *address)
{
    struct timeval patience = {600, 0};
    int fd;

    memset(address, 0, sizeof *address);
    address->svm_family = AF_VSOCK;
    address->svm_cid = cid;
    address->svm_port = port;
    fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience))
        perror("SO_VM_SOCKETS_CONNECT_TIMEOUT");
    return fd;
}

static unsigned byte_at(unsigned position)
{
    return (position * 7 + position / 251) & 255;
}

/* Send so many bytes, by another process, while the host sends them back, and count those that are right. */
static void echo(unsigned port, unsigned total)
{
    struct sockaddr_vm host;
    int fd = vsock(VMADDR_CID_HOST, port, &host);
    unsigned sent = 0, right = 0, got = 0, at;
    int status = -1;
    ssize_t count;

    if (connect(fd, (struct sockaddr *)&host, sizeof host)) {
        printf("connect %u: %s\n", port, strerror(errno));
        close(fd);
        return;
    }
    if (!fork()) {
        while (sent < total) {
            unsigned size = total - sent < sizeof buffer ? total - sent : sizeof buffer;
            for (at = 0; at < size; at++)
                buffer[at] = byte_at(sent + at);
            count = write(fd, buffer, size);
            if (count < 0)
                break;
            sent += count;
        }
        shutdown(fd, SHUT_WR);
        _exit(sent != total);
    }
    while ((count = read(fd, buffer, sizeof buffer)) > 0) {
        for (at = 0; at < (unsigned)count; at++)
            right += buffer[at] == byte_at(got + at);
        got += count;
    }
    wait(&status);
    printf("echo %u: sender %d, got %u, right %u, %s\n", port, status, got, right, count ? strerror(errno) : "end");
    close(fd);
}

/* Take one connection from the host, and send back what comes. */
static void serve(unsigned port)
{
    struct sockaddr_vm here, peer;
    socklen_t size = sizeof peer;
    int listener = vsock(VMADDR_CID_ANY, port, &here), fd;
    ssize_t count;
    unsigned got = 0;

    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4)) {
        printf("listen %u: %s\n", port, strerror(errno));
        return;
    }
    printf("listening %u\n", port);
    fd = accept(listener, (struct sockaddr *)&peer, &size);
    while ((count = read(fd, buffer, sizeof buffer)) > 0) {
        got += count;
        if (write(fd, buffer, count) != count)
            break;
    }
    printf("served %u: cid %u, got %u, %s\n", port, peer.svm_cid, got, count ? strerror(errno) : "end");
    close(fd);
    close(listener);
}

/* Wait at a connection until it is lost, and say how. */
static void hold(unsigned port)
{
    struct sockaddr_vm host;
    int fd = vsock(VMADDR_CID_HOST, port, &host);

    if (connect(fd, (struct sockaddr *)&host, sizeof host))
        printf("connect %u: %s\n", port, strerror(errno));
    printf("holding %u\n", port);
    if (read(fd, buffer, sizeof buffer) < 0)
        printf("lost %u: %s\n", port, strerror(errno));
    close(fd);
}

int main(int argc, char **argv)
{
    unsigned cid = 0;
    int fd = open("/dev/vsock", O_RDONLY);

    setvbuf(stdout, NULL, _IONBF, 0);
    ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid);
    printf("cid %u\n", cid);
    if (argc > 1 && !strcmp(argv[1], "hold"))
        hold(52);
    echo(52, argc > 1 ? 1000 : 1 << 20);
    if (argc > 1)
        return 0;
    echo(53, 1);
    serve(1234);
    serve(1235);
    printf("=== VSOCK DONE ===\n");
    return 0;
}
