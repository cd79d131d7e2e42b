/*
 * Short loops over bytes and words, such as libraries are full of: copies, lengths, comparisons, searches.
 *
 * Those of the C library would be the host's own, written for its vector instructions. Compilers know the plainest of
 * these loops by sight and call the library, so here each does a little more.
 */
#include "kernel.h"

#define ROUNDS 5800
#define SIZE (16 * 1024)

static uint8_t text[SIZE + 4], copy[SIZE + 4], backwards[SIZE];

/* Copies up to a 0 byte or `size` bytes, with letters made small; the number of bytes copied. */
static int copy_small(uint8_t *to, const uint8_t *from, int size)
{
    int i = 0;

    for (; i < size && from[i] != 0; i++)
        to[i] = from[i] >= 'A' && from[i] <= 'Z' ? from[i] + 32 : from[i];
    return i;
}

/* The length of a string at an aligned address, four bytes at a time. */
static int length_by_words(const uint32_t *string)
{
    const uint32_t *word = string;

    while (((*word - 0x01010101) & ~*word & 0x80808080) == 0)
        word++;
    int length = (word - string) * 4;
    for (uint32_t rest = *word; (rest & 0xff) != 0; rest >>= 8)
        length++;
    return length;
}

/* As strcmp(), but capital letters are equal to small ones, and no more than `size` bytes are compared. */
static int compare_small(const uint8_t *a, const uint8_t *b, int size)
{
    for (int i = 0; i < size; i++) {
        int x = a[i], y = b[i];
        x = x >= 'A' && x <= 'Z' ? x + 32 : x;
        y = y >= 'A' && y <= 'Z' ? y + 32 : y;
        if (x != y || x == 0)
            return x - y;
    }
    return 0;
}

/* The offset of the first of two bytes, or `size`. */
static int find_either(const uint8_t *from, uint8_t a, uint8_t b, int size)
{
    for (int i = 0; i < size; i++)
        if (from[i] == a || from[i] == b)
            return i;
    return size;
}

/* How often the pattern occurs. */
static int count_occurrences(const uint8_t *from, int size, const char *pattern)
{
    int count = 0;

    for (int i = 0; i < size; i++) {
        int k = 0;
        while (pattern[k] != '\0' && i + k < size && from[i + k] == (uint8_t)pattern[k])
            k++;
        count += pattern[k] == '\0';
    }
    return count;
}

static void reverse_copy(uint8_t *to, const uint8_t *from, int size)
{
    for (const uint8_t *last = from + size; last > from;)
        *to++ = *--last;
}

static uint32_t round_of_strings(void)
{
    static union {
        uint32_t words[SIZE / 4 + 1];
        uint8_t bytes[SIZE + 4];
    } aligned;
    uint32_t sum = one;

    sum = mix(sum, copy_small(copy, text, SIZE));
    sum = mix(sum, compare_small(copy, text, SIZE));
    sum = mix(sum, copy_small(aligned.bytes, text + 1, SIZE) - length_by_words(aligned.words));
    for (int line = 0; line < SIZE;) {
        int length = find_either(text + line, '\n', '.', SIZE - line);
        sum = mix(sum, length);
        line += length + 1;
    }
    sum = mix(sum, count_occurrences(text, SIZE, "translator"));
    reverse_copy(backwards, copy, SIZE);
    sum = mix(sum, count_occurrences(backwards, SIZE, "kcats"));
    for (int i = 0; i < SIZE; i += 61)
        sum = mix(sum, backwards[i] + length_by_words(aligned.words + (SIZE - i) / 4));
    return sum;
}

int main(int argc, char **argv)
{
    write_words(text, SIZE);
    return run_rounds("strings", round_of_strings, 0x28079c60, ROUNDS, argc, argv);
}
