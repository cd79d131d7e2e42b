/*
 * CRC-32 (the one of zip and Ethernet) with a table of 256 words: a load that depends on the load before it.
 */
#include "kernel.h"

#define ROUNDS 8200
#define SIZE (64 * 1024)

static uint8_t data[SIZE];
static uint32_t table[256];

static void make_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        table[byte] = crc;
    }
}

static uint32_t crc32(uint32_t crc, const uint8_t *from, int size)
{
    crc = ~crc;
    for (int i = 0; i < size; i++)
        crc = table[(crc ^ from[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}

/* In two pieces, of all bytes and of their first quarter. */
static uint32_t round_of_crc(void)
{
    return crc32(crc32(one - 1, data, SIZE), data, SIZE / 4);
}

int main(int argc, char **argv)
{
    uint32_t random = 1;

    make_table();
    for (int i = 0; i < SIZE; i++)
        data[i] = next_random(&random);
    return run_rounds("crc32", round_of_crc, 0xe48a9d8d, ROUNDS, argc, argv);
}
