#include "roundtrip.h"

#include "lzma.h"

size_t codec_bound(size_t size) { return lzma_stream_buffer_bound(size); }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    size_t length = 0;
    return lzma_easy_buffer_encode(3, LZMA_CHECK_CRC32, NULL, from, size, to, &length, room) == LZMA_OK ? length : 0;
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    uint64_t limit = 100 << 20;
    size_t read = 0, length = 0;
    return lzma_stream_buffer_decode(&limit, 0, NULL, from, &read, size, to, &length, room) == LZMA_OK ? length : 0;
}
