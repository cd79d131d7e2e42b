#include "roundtrip.h"

#include "zstd.h"

size_t codec_bound(size_t size) { return ZSTD_compressBound(size); }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    size_t length = ZSTD_compress(to, room, from, size, 5);
    return ZSTD_isError(length) ? 0 : length;
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    size_t length = ZSTD_decompress(to, room, from, size);
    return ZSTD_isError(length) ? 0 : length;
}
