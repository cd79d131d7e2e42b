#include "roundtrip.h"

#include "bzlib.h"

#include <stdio.h>
#include <stdlib.h>

// The library calls this if it finds itself wrong (BZ_NO_STDIO).
void bz_internal_error(int code)
{
    printf("bzip2: internal error %d\n", code);
    exit(1);
}

size_t codec_bound(size_t size) { return size + size / 100 + 600; }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    unsigned length = room;
    return BZ2_bzBuffToBuffCompress(to, &length, (char *)from, size, 9, 0, 0) == BZ_OK ? length : 0;
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    unsigned length = room;
    return BZ2_bzBuffToBuffDecompress(to, &length, (char *)from, size, 0, 0) == BZ_OK ? length : 0;
}
