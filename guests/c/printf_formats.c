/*
 * String formatting: integers of all sizes, widths, precisions, flags, floating point, and back through scanning.
 *
 * printf_formats [rounds]    formats everything that many times, prints it once
 */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
static int quiet;

static void compare(const char *expected, const char *got, int length)
{
    if (!quiet)
        printf("[%s]\n", got);
    if (strcmp(expected, got) != 0 || length != (int)strlen(expected)) {
        printf("should be [%s], %d long\n", expected, (int)strlen(expected));
        failures++;
    }
}

#define CHECK(expected, ...)                                             \
    do {                                                                 \
        char got[100];                                                   \
        int length = snprintf(got, sizeof got, __VA_ARGS__);             \
        compare(expected, got, length);                                  \
    } while (0)

static void integers(void)
{
    CHECK("0 -1 2147483647 -2147483648", "%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
    CHECK("4294967295 ffffffff FFFFFFFF 37777777777", "%u %x %X %o", -1u, -1u, -1u, -1u);
    CHECK("   42|42   |00042|  +42|+42", "%5d|%-5d|%05d|%+5d|%+d", 42, 42, 42, 42, 42);
    CHECK("0x2a 0X2A 052 0", "%#x %#X %#o %#x", 42, 42, 42, 0);
    CHECK(" 42 -42 |00042|  -00042", "% d % d |%.5d|%8.5d", 42, -42, 42, -42);
    CHECK("-1 255 -1 65535", "%hhd %hhu %hd %hu", -1, 255, -1, 65535);
    CHECK("9223372036854775807 -9223372036854775808", "%lld %lld", (long long)INT64_MAX, (long long)INT64_MIN);
    CHECK("18446744073709551615 ffffffffffffffff", "%llu %llx", -1ull, -1ull);
    CHECK("1777777777777777777777|        123456789abcdef", "%llo|%23llx", -1ull, 0x123456789abcdefull);
}

static void strings(void)
{
    CHECK("abc|    abc|abc    |ab|     ab", "%s|%7s|%-7s|%.2s|%7.2s", "abc", "abc", "abc", "abc", "abc");
    CHECK("x|    x|x    |%", "%c|%5c|%-5c|%%", 'x', 'x', 'x');
    CHECK("   7|7   |     1.50", "%*d|%-*d|%*.*f", 4, 7, 4, 7, 9, 2, 1.5);

    char small[8];
    const char *volatile long_text = "does not fit"; /* volatile: the compiler would warn of the truncation */
    int length = snprintf(small, sizeof small, "%s", long_text);
    if (strcmp(small, "does no") != 0 || length != 12) {
        puts("snprintf() does not truncate");
        failures++;
    }
}

static void floating_point(void)
{
    CHECK("0.000000 -0.000000 1.500000", "%f %f %f", 0.0, -0.0, 1.5);
    CHECK("3.14 3.1416 3.14159265358979", "%.2f %.4f %.14f", 3.14159265358979, 3.14159265358979, 3.14159265358979);
    CHECK("1.000000e+10 1.23e-05 -9.9E+99", "%e %.2e %.1E", 1e10, 1.23e-5, -9.9e99);
    CHECK("100000 1e+06 0.0001 1e-05 1.5", "%g %g %g %g %g", 1e5, 1e6, 1e-4, 1e-5, 1.5);
    CHECK("0.10000000000000001 0.1", "%.17g %.15g", 0.1, 0.1);
    CHECK("    1.50|1.50    |00001.50|+1.50", "%8.2f|%-8.2f|%08.2f|%+.2f", 1.5, 1.5, 1.5, 1.5);
    CHECK("0 2 2 4 -2", "%.0f %.0f %.0f %.0f %.0f", 0.5, 1.5, 2.5, 3.5, -2.5); /* ties go to even */
    CHECK("inf -inf nan INF", "%f %f %g %G", __builtin_inf(), -__builtin_inf(), __builtin_nan(""), __builtin_inf());
    CHECK("1.7976931348623157e+308 4.9406564584124654e-324", "%.16e %.16e", 0x1.fffffffffffffp1023, 0x1p-1074);
    CHECK("18014398509481984 1.", "%.0f %#.0f", 18014398509481984.0, 1.0);
}

static void scanning(void)
{
    int d = 0;
    unsigned x = 0;
    char word[10] = "";
    float f = 0;
    int items = sscanf(" -42 ff word 2.5e1", "%d %x %9s %f", &d, &x, word, &f);

    if (!quiet)
        printf("%d items: %d %#x %s %g\n", items, d, x, word, f);
    if (items != 4 || d != -42 || x != 0xff || strcmp(word, "word") != 0 || f != 25.0f) {
        puts("sscanf() is wrong");
        failures++;
    }
    if (strtol("-0x7f", NULL, 0) != -127 || strtoull("18446744073709551615", NULL, 10) != UINT64_MAX ||
        strtod("-1.25e-2", NULL) != -0.0125 || strtol("zz", NULL, 36) != 1295) {
        puts("strtol() and the like are wrong");
        failures++;
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;

    for (int round = 0; round < rounds; round++) {
        quiet = round > 0;
        integers();
        strings();
        floating_point();
        scanning();
    }
    puts(failures == 0 ? "printf_formats: ok" : "printf_formats: wrong");
    return failures == 0 ? 0 : 1;
}
