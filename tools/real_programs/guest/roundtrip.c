// Compress a file, decompress the result a number of times, and compare: roundtrip FILE [DECOMPRESSIONS]
#include "roundtrip.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t checksum(const unsigned char *data, size_t size)
{
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * 16777619u;
    return sum;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: roundtrip FILE [DECOMPRESSIONS]\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    int times = argc > 2 ? atoi(argv[2]) : 1;
    size_t bound = codec_bound(size);
    unsigned char *text = malloc(size), *packed = malloc(bound), *again = malloc(size);
    if (text == NULL || packed == NULL || again == NULL || fread(text, 1, size, file) != size) {
        printf("%s cannot be read\n", argv[1]);
        return 1;
    }
    size_t packed_size = codec_compress(packed, bound, text, size);
    printf("%lu bytes, compressed %lu, checksum %08lx\n", (unsigned long)size, (unsigned long)packed_size,
           (unsigned long)checksum(packed, packed_size));
    for (int i = 0; i < times; i++) {
        memset(again, 0, size);
        if (codec_decompress(again, size, packed, packed_size) != size || memcmp(text, again, size) != 0) {
            printf("the decompressed text differs\n");
            return 1;
        }
    }
    printf("decompressed %d times\n", times);
    return 0;
}
