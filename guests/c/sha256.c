/*
 * SHA-256 (FIPS 180-4): rotates, shifts, additions, byte loads, against the standard's own vectors.
 *
 * sha256 [length]    also digests a message of `length` letters 'a', at one go and in uneven pieces
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes taken so far */
    uint8_t block[BLOCK];
};

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint32_t initial_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t load_big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void compress(uint32_t state[8], const uint8_t block[BLOCK])
{
    uint32_t w[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    for (int t = 0; t < 16; t++)
        w[t] = load_big_endian(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    for (int t = 0; t < 64; t++) {
        uint32_t choose = (e & f) ^ (~e & g);
        uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
        uint32_t t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + choose + K[t] + w[t];
        uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + majority;
        h = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void sha256_init(struct sha256 *s)
{
    memcpy(s->state, initial_state, sizeof s->state);
    s->length = 0;
}

static void sha256_update(struct sha256 *s, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    while (size > 0) {
        size_t used = s->length % BLOCK;
        size_t take = size < BLOCK - used ? size : BLOCK - used;
        memcpy(s->block + used, bytes, take);
        s->length += take, bytes += take, size -= take;
        if (used + take == BLOCK)
            compress(s->state, s->block);
    }
}

/* Pads the message, writes the digest as 64 hexadecimal digits. */
static void sha256_final(struct sha256 *s, char hex[65])
{
    uint64_t bits = s->length * 8;
    uint8_t length[8];

    for (int i = 0; i < 8; i++)
        length[i] = bits >> (56 - 8 * i);
    sha256_update(s, "\x80", 1);
    while (s->length % BLOCK != BLOCK - 8)
        sha256_update(s, "", 1);
    sha256_update(s, length, 8);
    for (int i = 0; i < 8; i++)
        sprintf(hex + 8 * i, "%08lx", (unsigned long)s->state[i]);
}

static void digest(const char *message, size_t size, char hex[65])
{
    struct sha256 s;

    sha256_init(&s);
    sha256_update(&s, message, size);
    sha256_final(&s, hex);
}

/* The digest of `length` letters 'a', fed in pieces of growing size up to `largest`. */
static void digest_letters(long length, size_t largest, char hex[65])
{
    static char letters[1024];
    struct sha256 s;
    size_t piece = largest;

    memset(letters, 'a', sizeof letters);
    sha256_init(&s);
    while (length > 0) {
        size_t size = (long)piece < length ? piece : (size_t)length;
        sha256_update(&s, letters, size);
        length -= size;
        piece = piece % largest + 1;
    }
    sha256_final(&s, hex);
}

static const struct {
    const char *message, *digest;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static const char million_letters[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

int main(int argc, char **argv)
{
    long length = argc > 1 ? atol(argv[1]) : 1000;
    char hex[65], pieces[65];

    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        digest(vectors[i].message, strlen(vectors[i].message), hex);
        printf("%s\n", hex);
        if (strcmp(hex, vectors[i].digest) != 0) {
            printf("wrong, should be %s\n", vectors[i].digest);
            return 1;
        }
    }
    digest_letters(length, 1024, hex);
    digest_letters(length, 97, pieces);
    printf("%s (%ld letters)\n", hex, length);
    if (strcmp(hex, pieces) != 0 || (length == 1000000 && strcmp(hex, million_letters) != 0)) {
        puts("wrong");
        return 1;
    }
    puts("sha256: ok");
    return 0;
}
