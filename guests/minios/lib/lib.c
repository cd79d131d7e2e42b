#include "lib.h"

void *memset(void *to, int byte, size_t size)
{
    for (char *p = to; size; size--)
        *p++ = byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    const char *q = from;
    for (char *p = to; size; size--)
        *p++ = *q++;
    return to;
}

bool same_text(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void format_decimal(void (*put)(void *, char), void *context, int number)
{
    char digits[10];
    unsigned n = number, length = 0;
    if (number < 0) {
        put(context, '-');
        n = -n;
    }
    do
        digits[length++] = '0' + n % 10;
    while (n /= 10);
    while (length)
        put(context, digits[--length]);
}

void format(void (*put)(void *, char), void *context, const char *text, va_list arguments)
{
    for (; *text; text++) {
        if (*text != '%') {
            put(context, *text);
            continue;
        }
        switch (*++text) {
        case 's':
            for (const char *s = va_arg(arguments, const char *); *s; s++)
                put(context, *s);
            break;
        case 'd':
            format_decimal(put, context, va_arg(arguments, int));
            break;
        case 'x': {
            uint32_t n = va_arg(arguments, uint32_t);
            put(context, '0');
            put(context, 'x');
            for (int shift = 28; shift >= 0; shift -= 4)
                put(context, "0123456789abcdef"[n >> shift & 15]);
            break;
        }
        default:
            put(context, *text);
        }
    }
}
