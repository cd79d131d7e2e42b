/*
 * The library's string functions, written in assembly and full of special cases, at all alignments.
 *
 * strings [rounds]    rounds over all alignments, each with other data
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 128

static uint8_t source[SIZE], destination[SIZE], expected[SIZE];
static uint32_t checksum = 1;

static const int lengths[] = {0, 1, 3, 4, 7, 16, 37, 70};

static void fill(uint8_t *bytes, uint32_t seed)
{
    for (int i = 0; i < SIZE; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = seed >> 24 | 1; /* no zero: the tests place their own terminators */
    }
}

static void add_to_checksum(const uint8_t *bytes)
{
    for (int i = 0; i < SIZE; i += 4)
        checksum = checksum * 31 + (bytes[i] | bytes[i + 1] << 8 | bytes[i + 2] << 16 | (uint32_t)bytes[i + 3] << 24);
}

/* The plain versions; volatile keeps the compiler from recognising them and calling the library. */
static void plain_copy(uint8_t *to, const uint8_t *from, int length)
{
    for (volatile int i = 0; i < length; i++)
        to[i] = from[i];
}

static int is_as_expected(const char *function, int to, int from, int length)
{
    if (memcmp(destination, expected, SIZE) == 0) {
        add_to_checksum(destination);
        return 1;
    }
    printf("%s is wrong: to %d, from %d, length %d\n", function, to, from, length);
    return 0;
}

static int check_copies(int to, int from, int length)
{
    plain_copy(expected + to, source + from, length);
    memcpy(destination + to, source + from, length);
    if (!is_as_expected("memcpy", to, from, length))
        return 0;

    /* Overlapping, in either direction: what has been copied is copied again from 5 above, then from 5 below. */
    uint8_t saved[SIZE];
    plain_copy(saved, expected + to + 5, length);
    plain_copy(expected + to, saved, length);
    memmove(destination + to, destination + to + 5, length);
    plain_copy(saved, expected + to, length);
    plain_copy(expected + to + 5, saved, length);
    memmove(destination + to + 5, destination + to, length);
    return is_as_expected("memmove", to, from, length);
}

static int check_set(int to, int length)
{
    for (volatile int i = 0; i < length; i++)
        expected[to + i] = 0xa5;
    memset(destination + to, 0xa5, length);
    return is_as_expected("memset", to, 0, length);
}

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

static int check_searches(int to, int from, int length)
{
    char *a = (char *)destination + to, *b = (char *)source + from;
    uint8_t saved = source[from + length];

    memcpy(destination, source, SIZE);
    memmove(a, b, length);
    a[length] = b[length] = '\0';
    int good = (int)strlen(a) == length && strcmp(a, b) == 0 && memcmp(a, b, length) == 0 &&
               strncmp(a, b, length + 3) == 0 && strchr(a, '\0') == a + length &&
               memchr(a, 0, length + 1) == a + length;
    for (int at = 0; good && at < length; at += length / 4 + 1) {
        a[at] ^= 0x40; /* differs here, and not before */
        int difference = (uint8_t)a[at] < (uint8_t)b[at] ? -1 : 1;
        good = sign(strcmp(a, b)) == difference && sign(memcmp(a, b, length)) == difference && strncmp(a, b, at) == 0 &&
               sign(strncmp(a, b, at + 1)) == difference;
        a[at] ^= 0x40;
    }
    source[from + length] = saved;
    if (!good)
        printf("a search or comparison is wrong: to %d, from %d, length %d\n", to, from, length);
    return good;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    const int step = 3; /* each round takes a third of the pairs of alignments, each with one length */

    for (int round = 0; round < rounds; round++) {
        fill(source, round);
        fill(destination, round + 1000);
        memcpy(expected, destination, SIZE);
        for (int pair = round % step; pair < 8 * 8; pair += step) {
            int to = pair / 8, from = pair % 8;
            int length = lengths[(pair / step + round) % 8];
            if (!check_copies(to, from, length) || !check_set(to, length) || !check_searches(to, from, length))
                return 1;
            plain_copy(expected, destination, SIZE);
        }
    }
    printf("checksum %08lx\nstrings: ok\n", (unsigned long)checksum);
    return 0;
}
