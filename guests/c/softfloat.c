/*
 * Float and double arithmetic without an FPU: libgcc's routines and the mathematical functions of newlib.
 *
 * softfloat [rounds]    rounds of the identities; the edge cases are checked once
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int good, const char *what)
{
    if (!good) {
        printf("wrong: %s\n", what);
        failures++;
    }
}

static uint64_t bits_of_double(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static uint32_t bits_of_float(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static int is_near(double a, double b)
{
    return fabs(a - b) <= 1e-13 * (1 + fabs(b));
}

static double newton_square_root(double x)
{
    double root = x > 1 ? x : 1;

    for (int i = 0; i < 40; i++) {
        double next = 0.5 * (root + x / root);
        if (next >= root)
            break;
        root = next;
    }
    return root;
}

/* volatile keeps the compiler from doing the arithmetic itself. */
static void edge_cases(void)
{
    volatile double zero = 0, one = 1, huge = 1.7976931348623157e308, tiny = 4.94065645841246544e-324;
    volatile float one_f = 1, third_f = 3, huge_f = 3.4028234e38f, tiny_f = 1.40129846e-45f;
    double infinity = one / zero, nan = zero / zero;

    check(bits_of_double(one / 3) == 0x3fd5555555555555, "1/3");
    check(bits_of_float(one_f / third_f) == 0x3eaaaaab, "1/3 as float");
    check(bits_of_double(infinity) == 0x7ff0000000000000, "1/0");
    check(nan != nan && !(nan < one) && !(nan >= one), "NaN compares");
    check(bits_of_double(-zero) == 1ull << 63 && -zero == zero, "negative zero");
    check(huge * 2 == infinity && huge_f * 2 > huge_f && one_f / (huge_f * 2) == 0, "overflow");
    check(tiny / 2 == 0 && tiny * 2 > tiny && tiny_f / 2 == 0, "underflow");
    check(tiny * 0x1p52 * 0x1p52 == 0x1p-970, "denormal");
    check(one + 0x1p-53 == one && one + 0x1.8p-53 > one && (one + 0x1p-52) + 0x1p-53 == one + 0x1p-51, "ties to even");

    volatile double big = 4294967295.0, negative = -2147483648.75, wide = -9007199254740993.0;
    check((uint32_t)big == 0xffffffff && (int32_t)negative == INT32_MIN, "double to 32 bits");
    check((int64_t)wide == -9007199254740992 && (uint64_t)big == 0xffffffff, "double to 64 bits");
    volatile uint32_t word = 0xfffffffe;
    volatile int64_t integer = -1234567890123456789;
    check((double)word == 4294967294.0 && (float)word == 0x1p32f, "32 bits to floating point");
    check((double)integer == -1234567890123456768.0 && (float)integer == -0x1.12211p60f, "64 bits to floating point");
    check((float)1e40 == HUGE_VALF && (double)1.1f == 1.10000002384185791015625, "double to float and back");
}

static void identities(double x)
{
    check(is_near(sin(x) * sin(x) + cos(x) * cos(x), 1), "sin^2 + cos^2");
    check(is_near(log(exp(x / 4)), x / 4), "log(exp(x))");
    check(is_near(pow(x, 3), x * x * x), "pow(x, 3)");
    check(is_near(sqrt(x), newton_square_root(x)), "sqrt(x)");
    check(is_near(tan(atan(x)), x), "tan(atan(x))");
    check(floor(-x) == -ceil(x) && fmod(x, 1) == x - floor(x), "floor, ceil, fmod");

    int exponent;
    double fraction = frexp(x, &exponent);
    check(fraction >= 0.5 && fraction < 1 && ldexp(fraction, exponent) == x, "frexp, ldexp");

    float f = x;
    check(fabsf(sqrtf(f) * sqrtf(f) - f) < 1e-5f * f && f * 2 - f == f, "float");
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    double harmonic = 0;
    float harmonic_f = 0;

    edge_cases();
    for (int round = 0; round < rounds; round++)
        identities(0.7 + (round % 40) * 0.61803398875);
    for (int i = 1; i <= 200; i++) {
        harmonic += 1.0 / i;
        harmonic_f += 1.0f / i;
    }
    printf("harmonic(200) = %.15g, as float %.7g\n", harmonic, (double)harmonic_f);
    printf("sin(1) = %.15g, exp(1) = %.15g, pi = %.15g\n", sin(1), exp(1), 4 * atan(1));
    printf("%08lx%08lx %08lx\n", (unsigned long)(bits_of_double(harmonic) >> 32),
           (unsigned long)bits_of_double(harmonic) & 0xffffffff, (unsigned long)bits_of_float(harmonic_f));
    check(is_near(harmonic, 5.87803094812144), "harmonic series");
    check(is_near(4 * atan(1), 3.14159265358979324), "pi");
    puts(failures == 0 ? "softfloat: ok" : "softfloat: wrong");
    return failures == 0 ? 0 : 1;
}
