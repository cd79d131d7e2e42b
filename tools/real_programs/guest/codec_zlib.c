#include "roundtrip.h"
#include "zlib.h"

size_t codec_bound(size_t size) { return compressBound(size); }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    uLongf length = room;
    return compress2(to, &length, from, size, 6) == Z_OK ? length : 0;
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    uLongf length = room;
    return uncompress(to, &length, from, size) == Z_OK ? length : 0;
}
