/*
 * An LZSS compressor with hash chains, and its decompressor: byte loads and stores, unpredictable branches.
 *
 * lz [bytes]    compresses generated text of that size and checks the round trip
 *
 * The format: a flag byte announces eight items, lowest bit first; 0 is a literal byte, 1 is a match of two bytes,
 * 12 bits of distance and 4 bits of length.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 4095
#define MIN_MATCH 3
#define MAX_MATCH (MIN_MATCH + 15)
#define HASH_SIZE 1024
#define MAX_CHAIN 16

struct match {
    int distance, length;
};

/* For each hash the last position that had it, and for each position the one before with the same hash. */
static int head[HASH_SIZE];
static int *previous;

static unsigned hash(const uint8_t *p)
{
    return (p[0] << 6 ^ p[1] << 3 ^ p[2]) % HASH_SIZE;
}

static struct match find_match(const uint8_t *text, int position, int size)
{
    struct match best = {0, 0};
    int limit = size - position < MAX_MATCH ? size - position : MAX_MATCH;

    if (limit < MIN_MATCH)
        return best;
    int candidate = head[hash(text + position)];
    for (int tries = 0; tries < MAX_CHAIN && candidate >= 0 && position - candidate <= WINDOW; tries++) {
        int length = 0;
        while (length < limit && text[candidate + length] == text[position + length])
            length++;
        if (length > best.length)
            best = (struct match){position - candidate, length};
        candidate = previous[candidate];
    }
    return best;
}

static void remember(const uint8_t *text, int position, int size)
{
    if (size - position < MIN_MATCH)
        return;
    int *slot = &head[hash(text + position)];
    previous[position] = *slot;
    *slot = position;
}

static int compress(const uint8_t *text, int size, uint8_t *out)
{
    uint8_t *start = out, *flags = NULL;
    int position = 0;

    memset(head, -1, sizeof head);
    for (int item = 0; position < size; item++) {
        if (item % 8 == 0) {
            flags = out++;
            *flags = 0;
        }
        struct match match = find_match(text, position, size);
        int used = 1;
        if (match.length >= MIN_MATCH) {
            unsigned code = match.distance << 4 | (match.length - MIN_MATCH);
            *flags |= 1 << item % 8;
            *out++ = code >> 8;
            *out++ = code;
            used = match.length;
        } else {
            *out++ = text[position];
        }
        while (used-- > 0)
            remember(text, position++, size);
    }
    return out - start;
}

static int decompress(const uint8_t *in, int size, uint8_t *out)
{
    const uint8_t *end = in + size;
    uint8_t *start = out;
    unsigned flags = 0;

    for (int item = 0; in < end; item++, flags >>= 1) {
        if (item % 8 == 0)
            flags = *in++;
        if (flags & 1) {
            unsigned code = in[0] << 8 | in[1];
            const uint8_t *from = out - (code >> 4);
            in += 2;
            for (int length = (code & 15) + MIN_MATCH; length > 0; length--)
                *out++ = *from++; /* may overlap: a run repeats what it has just written */
        } else {
            *out++ = *in++;
        }
    }
    return out - start;
}

/* Words picked unevenly from a short list, with a stretch of one letter now and then. */
static void write_text(uint8_t *text, int size)
{
    static const char *const words[] = {"the", "translator", "of", "a", "block", "register", "and", "branch",
                                        "condition", "is", "loaded", "page", "in", "memory", "guest", "host"};
    uint32_t random = 1;
    int position = 0;

    while (position < size) {
        random = random * 1103515245 + 12345;
        const char *word = words[(random >> 16 & 15) & (random >> 20 & 15)];
        while (*word != '\0' && position < size)
            text[position++] = *word++;
        for (int run = random >> 28 == 0 ? 30 : 1; run > 0 && position < size; run--)
            text[position++] = ' ';
    }
}

static uint32_t adler32(const uint8_t *data, int size)
{
    uint32_t a = 1, b = 0;

    for (int i = 0; i < size; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

int main(int argc, char **argv)
{
    int size = argc > 1 ? atoi(argv[1]) : 1500;
    uint8_t *text = malloc(size), *packed = malloc(size + size / 8 + 1), *unpacked = malloc(size + MAX_MATCH);

    previous = malloc(size * sizeof *previous);
    if (text == NULL || packed == NULL || unpacked == NULL || previous == NULL) {
        puts("out of memory");
        return 1;
    }
    write_text(text, size);
    int packed_size = compress(text, size, packed);
    int unpacked_size = decompress(packed, packed_size, unpacked);
    printf("%d bytes to %d (%08lx) to %d (%08lx)\n", size, packed_size, (unsigned long)adler32(packed, packed_size),
           unpacked_size, (unsigned long)adler32(unpacked, unpacked_size));
    if (unpacked_size != size || memcmp(text, unpacked, size) != 0) {
        puts("lz: wrong");
        return 1;
    }
    free(text);
    free(packed);
    free(unpacked);
    free(previous);
    puts("lz: ok");
    return 0;
}
