/*
 * Atomic operations of 8, 16, 32 and 64 bits: LDREX and STREX with barriers on ARMv7. Older architectures have
 * no such instructions (and a single core without interrupts needs none): there the same is done plainly.
 *
 * atomics [rounds]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined __ARM_ARCH && __ARM_ARCH < 7
#define fetch_add(p, x) plain(*(p), *(p) += (x))
#define fetch_xor(p, x) plain(*(p), *(p) ^= (x))
#define exchange(p, x) plain(*(p), *(p) = (x))
#define compare_exchange(p, old, new) (*(p) == *(old) ? (*(p) = (new), 1) : (*(old) = *(p), 0))
#define plain(before, change) __extension__({ __typeof__(before) was = (before); (void)(change); was; })
#else
#define fetch_add(p, x) __atomic_fetch_add(p, x, __ATOMIC_SEQ_CST)
#define fetch_xor(p, x) __atomic_fetch_xor(p, x, __ATOMIC_ACQ_REL)
#define exchange(p, x) __atomic_exchange_n(p, x, __ATOMIC_ACQUIRE)
#define compare_exchange(p, old, new) __atomic_compare_exchange_n(p, old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
#endif

/* The neighbours of a cell must never change. */
#define DEFINE_EXERCISE(type, name)                                               \
    static uint64_t name(int rounds)                                              \
    {                                                                             \
        static struct {                                                           \
            type before, cell, after;                                             \
        } s;                                                                      \
        type model = 0;                                                           \
        for (int i = 0; i < rounds; i++) {                                        \
            type x = (type)(i * 0x0123456789abcdefull);                           \
            if (fetch_add(&s.cell, x) != model)                                   \
                fail(#type ", fetch and add");                                    \
            model += x;                                                           \
            if (fetch_xor(&s.cell, (type)~x) != model)                            \
                fail(#type ", fetch and xor");                                    \
            model ^= (type)~x;                                                    \
            type expected = (type)(model + 1);                                    \
            if (compare_exchange(&s.cell, &expected, x) || expected != model)     \
                fail(#type ", compare and exchange that should not succeed");     \
            if (!compare_exchange(&s.cell, &expected, (type)(model - 1)))         \
                fail(#type ", compare and exchange that should succeed");         \
            model -= 1;                                                           \
            if (exchange(&s.cell, (type)(model * 3)) != model)                    \
                fail(#type ", exchange");                                         \
            model *= 3;                                                           \
        }                                                                         \
        if (s.before != 0 || s.after != 0)                                        \
            fail(#type ", neighbours");                                           \
        return s.cell;                                                            \
    }

static _Noreturn void fail(const char *what)
{
    printf("wrong: %s\n", what);
    exit(1);
}

DEFINE_EXERCISE(uint8_t, exercise_bytes)
DEFINE_EXERCISE(uint16_t, exercise_halfwords)
DEFINE_EXERCISE(uint32_t, exercise_words)
DEFINE_EXERCISE(uint64_t, exercise_doublewords)

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 200;
    uint64_t doubleword = exercise_doublewords(rounds);

    printf("bytes %02lx\n", (unsigned long)exercise_bytes(rounds));
    printf("halfwords %04lx\n", (unsigned long)exercise_halfwords(rounds));
    printf("words %08lx\n", (unsigned long)exercise_words(rounds));
    printf("doublewords %08lx%08lx\n", (unsigned long)(doubleword >> 32), (unsigned long)(doubleword & 0xffffffff));
    puts("atomics: ok");
    return 0;
}
