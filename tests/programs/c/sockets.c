/* A connection by TCP to itself, a datagram, a pair of sockets, and a name that is looked up. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    char text[32] = "";
    int pair[2], listening = socket(AF_INET, SOCK_STREAM, 0), connected = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listening, (struct sockaddr *)&here, sizeof here) || listen(listening, 1))
        return 1;
    getsockname(listening, (struct sockaddr *)&here, &size);
    if (connect(connected, (struct sockaddr *)&here, sizeof here))
        return 2;
    int accepted = accept(listening, 0, 0);
    if (write(connected, "by tcp", 6) != 6 || read(accepted, text, sizeof text) != 6)
        return 3;
    puts(text);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) || write(pair[0], "by unix", 7) != 7)
        return 4;
    memset(text, 0, sizeof text);
    if (read(pair[1], text, sizeof text) != 7)
        return 5;
    puts(text);
    return 0;
}
