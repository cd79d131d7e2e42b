// Encode and decode sound by GSM 06.10: gsm_codec SECONDS. The sound is made here: a chirp with a beat.
#include "gsm.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int frames = (argc > 1 ? atoi(argv[1]) : 1) * 50;
    gsm encoder = gsm_create(), decoder = gsm_create();
    uint32_t phase = 0, step = 1 << 24, sum = 2166136261u;
    for (int frame = 0; frame < frames; frame++) {
        gsm_signal sound[160], decoded[160];
        gsm_frame packed;
        for (int i = 0; i < 160; i++) {
            phase += step += 3000;
            int triangle = (int32_t)phase >> 17;
            triangle = triangle < 0 ? -triangle : triangle;
            sound[i] = (triangle - 8192) * ((frame * 160 + i) / 16 % 256) / 256;
        }
        gsm_encode(encoder, sound, packed);
        if (gsm_decode(decoder, packed, decoded)) {
            printf("frame %d cannot be decoded\n", frame);
            return 1;
        }
        for (int i = 0; i < 160; i++)
            sum = (sum ^ (uint16_t)decoded[i]) * 16777619u;
    }
    printf("%d frames, checksum %08lx\n", frames, (unsigned long)sum);
    return 0;
}
