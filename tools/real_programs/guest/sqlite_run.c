// Execute the SQL of a file in a database in memory, and print the rows: sqlite_run FILE
#include "sqlite3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// SQLite is compiled for another operating system than it knows (SQLITE_OS_OTHER): this one has no files and no time.
static int open_none(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs, (void)name, (void)flags, (void)out;
    file->pMethods = NULL;
    return SQLITE_CANTOPEN;
}

static int delete_none(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs, (void)name, (void)sync;
    return SQLITE_IOERR_DELETE_NOENT;
}

static int access_none(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs, (void)name, (void)flags;
    *out = 0;
    return SQLITE_OK;
}

static int full_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    (void)vfs;
    return snprintf(out, size, "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int randomness(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    memset(out, 1, size);
    return size;
}

static int sleep_not(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return microseconds;
}

static int current_time(sqlite3_vfs *vfs, double *day)
{
    (void)vfs;
    *day = 2460000.5;
    return SQLITE_OK;
}

int sqlite3_os_init(void)
{
    static sqlite3_vfs vfs = {
        .iVersion = 1,
        .szOsFile = sizeof(sqlite3_file),
        .mxPathname = 100,
        .zName = "none",
        .xOpen = open_none,
        .xDelete = delete_none,
        .xAccess = access_none,
        .xFullPathname = full_path,
        .xRandomness = randomness,
        .xSleep = sleep_not,
        .xCurrentTime = current_time,
    };
    return sqlite3_vfs_register(&vfs, 1);
}

int sqlite3_os_end(void) { return SQLITE_OK; }

static int print_row(void *data, int columns, char **values, char **names)
{
    (void)data, (void)names;
    for (int i = 0; i < columns; i++)
        printf(i ? "|%s" : "%s", values[i] ? values[i] : "");
    putchar('\n');
    return 0;
}

int main(int argc, char **argv)
{
    static char script[65536];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: sqlite_run FILE\n");
        return 2;
    }
    script[fread(script, 1, sizeof script - 1, file)] = 0;
    sqlite3 *database;
    char *message = NULL;
    if (sqlite3_open(":memory:", &database) != SQLITE_OK ||
        sqlite3_exec(database, script, print_row, NULL, &message) != SQLITE_OK) {
        printf("%s\n", message ? message : sqlite3_errmsg(database));
        return 1;
    }
    sqlite3_close(database);
    return 0;
}
