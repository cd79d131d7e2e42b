/* What the kernel and the programs share. There is no C library, but the compiler may call these. */
#ifndef LIB_H
#define LIB_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memset(void *to, int byte, size_t size);
void *memcpy(void *to, const void *from, size_t size);
bool same_text(const char *a, const char *b);

/* Like vprintf(), but knows only %s, %d, and %x, which is 0x and eight digits. Gives all of it to put(context, c). */
void format(void (*put)(void *, char), void *context, const char *text, va_list arguments);

#endif
