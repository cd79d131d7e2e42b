#include "network.h"
#include "files.h"
#include "system.h"

enum {
    ADD_ROUTE = 0x890b, GET_FLAGS = 0x8913, SET_FLAGS_OF = 0x8914, SET_ADDRESS = 0x8916, SET_NETMASK = 0x891c,
    SET_MTU = 0x8922, SET_MAC = 0x8924,
};
enum { INTERNET = 2, DATAGRAMS = 2, ETHERNET = 1, IS_UP = 1, IS_RUNNING = 0x40, ROUTE_IS_UP = 1, ROUTE_HAS_GATEWAY = 2 };
enum { CARDS = 4 };

struct address { /* struct sockaddr, for the internet and for hardware */
    uint16_t family;
    uint8_t data[14];
};

struct interface_request { /* struct ifreq */
    char name[16];
    union {
        struct address address;
        int16_t flags;
        int32_t number;
        uint8_t size[16];
    };
};

struct route { /* struct rtentry */
    uint32_t unused;
    struct address target, gateway, mask;
    uint16_t flags, unused_too;
    uint32_t more[2];
    uint16_t metric;
    char *device;
    uint32_t mtu, window;
    uint16_t round_trip;
};

static long ask(long request, struct interface_request *value)
{
    long file = call(SYS_SOCKET, INTERNET, DATAGRAMS | CLOSE_ON_EXEC, 0, 0, 0), answer;

    if (file < 0)
        return file;
    answer = call(SYS_IOCTL, file, request, (long)value, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer;
}

static struct address internet(uint32_t address)
{
    struct address found = {INTERNET, {0}};

    memcpy(found.data + 2, &address, sizeof address);
    return found;
}

static long set_flags(struct interface_request request, int16_t flags)
{
    request.flags = flags;
    return ask(SET_FLAGS_OF, &request);
}

static long set_address(struct interface_request request, long what, uint32_t address)
{
    request.address = internet(address);
    return ask(what, &request);
}

static long set_mac(struct interface_request request, const uint8_t *mac)
{
    request.address = (struct address){ETHERNET, {0}};
    memcpy(request.address.data, mac, 6);
    return ask(SET_MAC, &request);
}

static long set_mtu(struct interface_request request, uint32_t mtu)
{
    request.number = (int32_t)mtu;
    return ask(SET_MTU, &request);
}

/* Let what has no other route go to a gateway, which is in the network of an interface. */
static long add_route(char *device, uint32_t gateway)
{
    struct route route = {.target = internet(0), .gateway = internet(gateway), .mask = internet(0),
                          .flags = ROUTE_IS_UP | ROUTE_HAS_GATEWAY, .device = device};
    long file = call(SYS_SOCKET, INTERNET, DATAGRAMS | CLOSE_ON_EXEC, 0, 0, 0), answer;

    if (file < 0)
        return file;
    answer = call(SYS_IOCTL, file, ADD_ROUTE, (long)&route, 0, 0);
    call(SYS_CLOSE, file, 0, 0, 0, 0);
    return answer == -EEXIST ? 0 : answer;
}

/* An interface without IPv6, which its network does not have. */
static void leave_out_ipv6(const char *name)
{
    char path[64];

    if (!join(path, sizeof path, "/proc/sys/net/ipv6/conf/", name, "/disable_ipv6"))
        write_file(path, 0, (const uint8_t *)"1", 1);
}

void raise_loopback(void)
{
    set_flags((struct interface_request){.name = "lo"}, IS_UP | IS_RUNNING);
}

void hide_cards(void)
{
    char path[] = "/sys/class/net/eth1/device";
    char *number = path + sizeof "/sys/class/net/eth" - 1;
    char target[64];

    for (; *number < '0' + CARDS; ++*number) {
        long end = call(SYS_READLINKAT, AT_HERE, (long)path, (long)target, sizeof target, 0), from = end;

        if (end < 0)
            return;
        while (from && target[from - 1] != '/')
            from--;
        write_file("/sys/bus/virtio/drivers/virtio_net/unbind", 0, (const uint8_t *)target + from, (uint32_t)(end - from));
    }
}

static int has_mac(const struct interface *wanted)
{
    for (uint32_t at = 0; at < sizeof wanted->mac; at++)
        if (wanted->mac[at])
            return 1;
    return 0;
}

long set_interface(const uint8_t *value, uint32_t size)
{
    struct interface wanted;
    struct interface_request request = {.name = "eth"};
    long answer;

    if (size < sizeof wanted.mac + 20)
        return -EINVAL;
    memcpy(&wanted, value, sizeof wanted.mac + 20);
    if (wanted.card >= CARDS)
        return -EINVAL;
    write_decimal(request.name + 3, wanted.card);
    if ((answer = set_flags(request, 0)) < 0)
        return answer;
    if (!wanted.address) {
        answer = has_mac(&wanted) ? set_mac(request, wanted.mac) : 0;
        return answer < 0 ? answer : set_address(request, SET_ADDRESS, 0);
    }
    leave_out_ipv6(request.name);
    if ((answer = set_mac(request, wanted.mac)) < 0 || (answer = set_mtu(request, wanted.mtu)) < 0 ||
        (answer = set_address(request, SET_ADDRESS, wanted.address)) < 0 ||
        (answer = set_address(request, SET_NETMASK, wanted.netmask)) < 0 ||
        (answer = set_flags(request, IS_UP | IS_RUNNING)) < 0)
        return answer;
    return wanted.gateway ? add_route(request.name, wanted.gateway) : 0;
}
