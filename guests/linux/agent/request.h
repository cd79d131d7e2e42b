/*
 * A request says what a session's process does before it executes its program: a list of items, which are a tag (1
 * byte), a size (4 bytes) and a value. They are carried out in their order.
 */
#ifndef REQUEST_H
#define REQUEST_H

#include <stdint.h>

#define REQUEST_MOST (2u << 20)

enum { /* of the values, all texts end with a zero byte */
    ITEM_ARGUMENT = 'a',    /* one of argv */
    ITEM_VARIABLE = 'e',    /* one of the environment, NAME=VALUE */
    ITEM_PROGRAM = 'p',     /* the path that is executed */
    ITEM_DIRECTORY = 'd',   /* the working directory */
    ITEM_TERMINAL = 't',    /* rows and columns, 2 bytes each: the streams are a terminal */
    ITEM_MOUNT = 'm',       /* flags, 4 bytes; source, target, type and options */
    ITEM_MAKE = 'k',        /* a directory to be made, with those above it; mode 0755 */
    ITEM_FILE = 'f',        /* mode, 4 bytes; path, and the content */
    ITEM_LINK = 'l',        /* target and path of a symbolic link */
    ITEM_ROOT = 'r',        /* the new root directory */
    ITEM_GROUPS = 'g',      /* the supplementary groups, 4 bytes each */
    ITEM_OWNER = 'o',       /* user and group, 4 bytes each */
    ITEM_HOST_NAME = 'h',
    ITEM_TIME = 'c',        /* seconds since 1970 and nanoseconds, 4 bytes each */
    ITEM_ENTROPY = 's',     /* random bytes: the kernel's generator starts again from them */
    ITEM_NAMESPACES = 'n',  /* flags of unshare(2), 4 bytes */
    ITEM_MASK = 'u',        /* the file mode creation mask, 4 bytes */
};

struct request {
    uint8_t *items;
    uint32_t size;
};

struct item {
    uint8_t tag;
    uint32_t size;
    uint8_t *value;
};

/* What went wrong: an error number, the tag of the item and its place in the list. */
struct failure {
    int32_t error;
    uint32_t tag, place;
};

/* Find the item at `at` in a request. Return where the next one is, or 0 at the end. */
uint32_t item_at(const struct request *request, uint32_t at, struct item *item);
/* The value of the first item with this tag, or 0. */
uint8_t *find_item(const struct request *request, uint8_t tag);
/* The text behind the one at `text`. */
char *next_text(char *text);
/* Carry an item out. Return 0 or more, or an error number. */
long carry_out(const struct item *item);
/* The forked process: carry a request out and execute the program, or tell `report` a failure. */
void become(const struct request *request, int report) __attribute__((noreturn));

#endif
