/*
 * What the agent does itself in a session's process: it has the session's streams, and ends with a status. What goes
 * wrong is said at standard error: an error number and what it is about.
 */
#ifndef JOBS_H
#define JOBS_H

#include <stdint.h>

enum { /* and their arguments, which are texts */
    JOB_READ = 'c',      /* files: the size of each (4 bytes, or -1 if it cannot be read) and what is in it */
    JOB_STATUS = 's',    /* a path: mode, size and time of it, and the target of a link */
    JOB_PROCESSES = 'p', /* what /proc says of each process */
    JOB_PACK = 'P',      /* a path, and the name that it has in the tar archive */
    JOB_UNPACK = 'U',    /* a directory, and "n" if no directory may replace what is none, or the other way round */
    JOB_CHANGES = 'D',   /* the upper directory of an overlay, and what is below it */
    JOB_LAYER = 'L',     /* the upper directory of an overlay, which becomes an OCI layer */
};

/* Do a job, and return its exit status. */
int do_job(char *job, const char *end);

/* Say what has gone wrong, and end. */
void give_up(long error, const char *about) __attribute__((noreturn));
/* What is written to standard output, in large pieces. */
void put(const void *data, uint32_t size);
void put_number(uint64_t value, char behind);
void put_rest(void);

int pack(const char *path, const char *name);
int pack_layer(const char *upper);
int unpack(const char *path, int keeps_kind);
int list_changes(const char *upper, const char *lower);

#endif
