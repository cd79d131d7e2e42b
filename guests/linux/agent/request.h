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
    ITEM_PROGRAM = 'p',     /* what is executed: a path, or a name that is looked for in PATH of the environment */
    ITEM_JOB = 'j',         /* what the agent does itself, in place of a program: a letter and arguments (jobs.h) */
    ITEM_DIRECTORY = 'd',   /* the working directory */
    ITEM_TERMINAL = 't',    /* rows and columns, 2 bytes each: the streams are a terminal */
    ITEM_WINDOW = 'w',      /* how many bytes of output are sent before the host asks for more, 4 bytes */
    ITEM_MOUNT = 'm',       /* flags, 4 bytes; source, target, type and options */
    ITEM_MAKE = 'k',        /* a directory to be made, with those above it; mode 0755 */
    ITEM_FILE = 'f',        /* mode, 4 bytes; path, and the content */
    ITEM_LINK = 'l',        /* target and path of a symbolic link */
    ITEM_NODE = 'x',        /* mode and device number, 4 bytes each, and the path of a device file */
    ITEM_ROOT = 'r',        /* the new root directory */
    ITEM_GROUPS = 'g',      /* the supplementary groups, 4 bytes each */
    ITEM_OWNER = 'o',       /* user and group, 4 bytes each */
    ITEM_USER = 'U',        /* user, "user", "user:group" or "", and more groups: names of the root directory's files */
    ITEM_HOST_NAME = 'h',
    ITEM_TIME = 'c',        /* seconds since 1970 and nanoseconds, 4 bytes each */
    ITEM_ENTROPY = 's',     /* random bytes: the kernel's generator starts again from them */
    ITEM_NAMESPACES = 'n',  /* flags of unshare(2), 4 bytes */
    ITEM_ENTER = 'N',       /* a process, whose namespaces are entered, and which: flags of clone(2), 4 bytes each */
    ITEM_FORK = 'F',        /* go on in a new process, which is in a PID namespace that was chosen before */
    ITEM_MASK = 'u',        /* the file mode creation mask, 4 bytes */
    ITEM_PARTITION = 'P',   /* first byte and size, 8 bytes each, number, 4 bytes, of a partition; the disk's path */
    ITEM_DISK = 'B',        /* bytes that a disk has at least, 8 bytes, and its path: wait until the kernel knows of them */
    ITEM_PIVOT = 'v',       /* a new root; the old one is the working directory then, and relative paths begin there */
    ITEM_DETACH = 'V',      /* give up the old root */
    ITEM_CONSOLE = 'T',     /* a file at which the session's terminal is seen too, if it has one */
    ITEM_BIND = 'b',        /* what is seen at another path, too, which becomes a file if there is nothing: two paths */
    ITEM_HIDE = 'M',        /* a path that looks empty */
    ITEM_FREEZE = 'R',      /* a path that can only be read */
    ITEM_CAPABILITIES = 'C',/* the capabilities that any program of this process can have, 8 bytes */
    ITEM_LIMIT = 'L',       /* a resource of setrlimit(2), 4 bytes, and its soft and hard limit, 8 bytes each */
    ITEM_NO_PRIVILEGES = 'Q', /* no program that is executed gives more rights than this process has */
    ITEM_DEVICES = 'D',     /* let the container's control group use every device (devices.h) */
    ITEM_INTERFACE = 'I',   /* what a network card is to be (network.h) */
    ITEM_INIT = 'i',        /* stay as PID 1, and let the program be a child */
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

/* What went wrong: an error number, the tag of the item and its place in the list. Without an error: the process that
 * goes on, in `place`. */
struct failure {
    int32_t error;
    uint32_t tag, place;
};

/* What is carried out, and by whom. */
struct carrier {
    const struct request *request;
    const char *terminal; /* the path of the session's terminal, or 0 */
    int report;           /* where failures are told */
    int old_root;         /* the root before a pivot, or -1 */
    const char *home;     /* what HOME is, unless the environment says */
    int is_init;
};

/* Find the item at `at` in a request. Return where the next one is, or 0 at the end. */
uint32_t item_at(const struct request *request, uint32_t at, struct item *item);
/* The value of the first item with this tag, or 0. */
uint8_t *find_item(const struct request *request, uint8_t tag);
/* The text behind the one at `text`. */
char *next_text(char *text);
/* The forked process: carry a request out and execute the program, or tell `report` a failure. */
void become(struct carrier *carrier) __attribute__((noreturn));

#endif
