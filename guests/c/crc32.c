/*
 * CRC-32 (IEEE 802.3, reflected) three ways: bit by bit, a nibble at a time, a byte at a time by table.
 *
 * crc32 [rounds]    rounds over a buffer of 256 bytes, each continuing from the one before
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define POLYNOMIAL 0xedb88320u

static uint32_t byte_table[256];
static uint32_t nibble_table[16];

static uint32_t crc_bits(uint32_t crc, const uint8_t *data, int size)
{
    crc = ~crc;
    while (size-- > 0) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return ~crc;
}

static uint32_t crc_nibbles(uint32_t crc, const uint8_t *data, int size)
{
    crc = ~crc;
    while (size-- > 0) {
        crc ^= *data++;
        crc = crc >> 4 ^ nibble_table[crc & 15];
        crc = crc >> 4 ^ nibble_table[crc & 15];
    }
    return ~crc;
}

static uint32_t crc_bytes(uint32_t crc, const uint8_t *data, int size)
{
    crc = ~crc;
    while (size-- > 0)
        crc = crc >> 8 ^ byte_table[(crc ^ *data++) & 255];
    return ~crc;
}

static void make_table(uint32_t *table, int entries, int bits)
{
    for (int i = 0; i < entries; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < bits; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[i] = crc;
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 4;
    static uint8_t data[256];
    const uint8_t *check = (const uint8_t *)"123456789";

    make_table(byte_table, 256, 8);
    make_table(nibble_table, 16, 4);
    printf("check value %08lx\n", (unsigned long)crc_bytes(0, check, 9));
    if (crc_bits(0, check, 9) != 0xcbf43926 || crc_nibbles(0, check, 9) != 0xcbf43926 ||
        crc_bytes(0, check, 9) != 0xcbf43926) {
        puts("wrong check value");
        return 1;
    }

    for (int i = 0; i < 256; i++)
        data[i] = i * 7 + 3;
    uint32_t bits = 0, nibbles = 0, bytes = 0;
    for (int round = 0; round < rounds; round++) {
        bits = crc_bits(bits, data, sizeof data);
        nibbles = crc_nibbles(nibbles, data, sizeof data);
        bytes = crc_bytes(bytes, data, sizeof data);
        data[bits & 255] ^= round; /* no two rounds see the same data */
    }
    printf("%d rounds: %08lx %08lx %08lx\n", rounds, (unsigned long)bits, (unsigned long)nibbles, (unsigned long)bytes);
    if (bits != nibbles || bits != bytes) {
        puts("the three do not agree");
        return 1;
    }
    puts("crc32: ok");
    return 0;
}
