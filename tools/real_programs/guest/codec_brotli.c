#include "roundtrip.h"

#include "brotli/decode.h"
#include "brotli/encode.h"

size_t codec_bound(size_t size) { return BrotliEncoderMaxCompressedSize(size); }

size_t codec_compress(void *to, size_t room, const void *from, size_t size)
{
    size_t length = room;
    return BrotliEncoderCompress(4, BROTLI_DEFAULT_WINDOW, BROTLI_MODE_TEXT, size, from, &length, to) ? length : 0;
}

size_t codec_decompress(void *to, size_t room, const void *from, size_t size)
{
    size_t length = room;
    return BrotliDecoderDecompress(size, from, &length, to) == BROTLI_DECODER_RESULT_SUCCESS ? length : 0;
}
