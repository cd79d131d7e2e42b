#include "roundtrip.h"

#include "lz4.h"
#include "lz4hc.h"

size_t codec_bound(size_t size) { return LZ4_compressBound(size); }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    return LZ4_compress_HC(from, to, size, room, 9);
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    int length = LZ4_decompress_safe(from, to, size, room);
    return length < 0 ? 0 : length;
}
