/*
 * An LZ77 compressor with a hash table of last positions, and its decompressor: copies of a few bytes, comparisons of
 * strings, branches that cannot be predicted.
 *
 * A sequence is a byte with two counts, of literals (high) and of matching bytes beyond four (low); then the literals;
 * then two bytes of distance. A count of 15 goes on in the following bytes, up to one that is not 255. The last
 * sequence has literals only.
 */
#include "kernel.h"

#define ROUNDS 10000
#define SIZE (48 * 1024)
#define HASH_SIZE 4096
#define MIN_MATCH 4

static uint8_t text[SIZE], packed[SIZE + SIZE / 128], unpacked[SIZE];
static uint16_t last_position[HASH_SIZE];

static uint32_t four_bytes(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint8_t *write_count(uint8_t *out, int count)
{
    if (count < 15)
        return out;
    for (count -= 15; count >= 255; count -= 255)
        *out++ = 255;
    *out++ = count;
    return out;
}

static const uint8_t *read_count(const uint8_t *in, int *count)
{
    if (*count < 15)
        return in;
    do
        *count += *in;
    while (*in++ == 255);
    return in;
}

static uint8_t *write_literals(uint8_t *out, const uint8_t *from, int count, int low)
{
    *out++ = (count < 15 ? count : 15) << 4 | (low < 15 ? low : 15);
    out = write_count(out, count);
    while (count-- > 0)
        *out++ = *from++;
    return out;
}

/* The number of bytes written. */
static int compress(const uint8_t *in, int size, uint8_t *out)
{
    uint8_t *start = out;
    int position = 0, literals = 0;

    for (int i = 0; i < HASH_SIZE; i++)
        last_position[i] = 0;
    while (position + MIN_MATCH <= size) {
        uint32_t bytes = four_bytes(in + position), slot = bytes * 2654435761u >> 20;
        int candidate = last_position[slot];

        last_position[slot] = position;
        if (candidate >= position || four_bytes(in + candidate) != bytes) {
            position++;
            continue;
        }
        int length = MIN_MATCH;
        while (position + length < size && in[candidate + length] == in[position + length])
            length++;
        out = write_literals(out, in + literals, position - literals, length - MIN_MATCH);
        out = write_count(out, length - MIN_MATCH);
        *out++ = position - candidate;
        *out++ = (position - candidate) >> 8;
        position += length;
        literals = position;
    }
    return write_literals(out, in + literals, size - literals, 0) - start;
}

/* The number of bytes written. */
static int decompress(const uint8_t *in, int size, uint8_t *out)
{
    const uint8_t *end = in + size;
    uint8_t *start = out;

    while (in < end) {
        int literals = *in >> 4, length = *in & 15;

        in = read_count(in + 1, &literals);
        while (literals-- > 0)
            *out++ = *in++;
        if (in == end)
            break;
        in = read_count(in, &length);
        const uint8_t *from = out - (in[0] | in[1] << 8);
        in += 2;
        for (length += MIN_MATCH; length > 0; length--)
            *out++ = *from++; /* may overlap: then what was just written is repeated */
    }
    return out - start;
}

static uint32_t round_of_packing(void)
{
    uint32_t sum = one;
    int size = compress(text, SIZE, packed);

    for (int i = 0; i < size; i++)
        sum = mix(sum, packed[i]);
    if (decompress(packed, size, unpacked) != SIZE)
        return 0;
    for (int i = 0; i < SIZE; i++)
        if (unpacked[i] != text[i])
            return 0;
    return mix(sum, size);
}

int main(int argc, char **argv)
{
    write_words(text, SIZE);
    return run_rounds("lz77", round_of_packing, 0x6fb6f81c, ROUNDS, argc, argv);
}
