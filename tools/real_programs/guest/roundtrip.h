// A codec that roundtrip.c measures. Sizes are in bytes.
#include <stddef.h>

// The largest size that `size` bytes can have when they are compressed.
size_t codec_bound(size_t size);
// Compress `size` bytes of `from` into `to`, which has room for `room`. Returns the compressed size, or 0 for an error.
size_t codec_compress(void *to, size_t room, const void *from, size_t size);
// Decompress into `to`, which has room for `room`. Returns the size, or 0 for an error.
size_t codec_decompress(void *to, size_t room, const void *from, size_t size);
