/*
 * Files through semihosting: create, write, read, seek, append, overwrite, rename, remove, and the errors.
 * It works in the current directory and leaves nothing behind.
 *
 * files [lines]    the length of the text file
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __NEWLIB__
/* newlib's rename() is link() and unlink(), and there is no link() in semihosting; the call that there is: */
int _rename(const char *from, const char *to);
#define rename _rename
#endif

#define FIRST_NAME "guest-files-1.tmp"
#define SECOND_NAME "guest-files-2.tmp"
#define LINE "line %05d\n"
#define LINE_LENGTH 11

static void check(int good, const char *what)
{
    if (!good) {
        printf("wrong: %s\n", what);
        exit(1);
    }
    printf("%s: ok\n", what);
}

static FILE *open_file(const char *name, const char *mode)
{
    FILE *file = fopen(name, mode);

    if (file == NULL) {
        printf("cannot open %s with mode %s\n", name, mode);
        exit(1);
    }
    return file;
}

static void write_lines(const char *name, const char *mode, int first, int last)
{
    FILE *file = open_file(name, mode);

    for (int i = first; i < last; i++)
        fprintf(file, LINE, i);
    check(fclose(file) == 0, mode[0] == 'w' ? "create and write" : "append");
}

static void read_lines(const char *name, int lines)
{
    FILE *file = open_file(name, "r");
    char got[32], expected[32];
    int i = 0;

    while (fgets(got, sizeof got, file) != NULL) {
        sprintf(expected, LINE, i++);
        if (strcmp(got, expected) != 0)
            check(0, "read back");
    }
    check(i == lines && feof(file) && !ferror(file), "read back");
    fclose(file);
}

/* The number in the line that begins at the current position, or that it is in the middle of. */
static int read_number(FILE *file)
{
    char line[32] = "";

    if (fgets(line, sizeof line, file) == NULL)
        return -1;
    return atoi(line[0] == 'l' ? line + 5 : line);
}

static void seek_in(const char *name, int lines)
{
    FILE *file = open_file(name, "r");

    fseek(file, 0, SEEK_END);
    check(ftell(file) == (long)lines * LINE_LENGTH, "seek to the end");
    for (int line = lines - 1; line >= 0; line -= lines / 5 + 1) {
        fseek(file, line * LINE_LENGTH, SEEK_SET);
        check(read_number(file) == line, "seek to a line");
    }
    fseek(file, -LINE_LENGTH, SEEK_END);
    fseek(file, 5, SEEK_CUR);
    check(read_number(file) == lines - 1, "seek from the end");
    rewind(file);
    check(fgetc(file) == 'l', "rewind");
    fclose(file);
}

static void overwrite(const char *name)
{
    FILE *file = open_file(name, "r+");
    char line[32];

    fseek(file, LINE_LENGTH, SEEK_SET);
    fputs("LINE", file);
    fseek(file, 0, SEEK_CUR);
    check(fgets(line, sizeof line, file) != NULL && strcmp(line, " 00001\n") == 0, "overwrite");
    fseek(file, LINE_LENGTH, SEEK_SET);
    check(fgets(line, sizeof line, file) != NULL && strcmp(line, "LINE 00001\n") == 0, "read what was overwritten");
    fclose(file);
}

/* More than a buffer at once, and bytes of all values. */
static void binary(const char *name)
{
    static uint8_t out[3000], in[3000 + 1];
    FILE *file = open_file(name, "wb+");

    for (size_t i = 0; i < sizeof out; i++)
        out[i] = i ^ i >> 8;
    check(fwrite(out, 1, sizeof out, file) == sizeof out, "write binary");
    rewind(file);
    check(fread(in, 1, sizeof in, file) == sizeof out && feof(file), "read binary");
    check(memcmp(in, out, sizeof out) == 0, "compare binary");
    fclose(file);
}

static void errors(void)
{
    errno = 0;
    check(fopen("no-such-directory/file", "w") == NULL && errno == ENOENT, "no file where there is no directory");
    errno = 0;
    check(fopen(FIRST_NAME, "r") == NULL && errno == ENOENT, "no file after its removal");
    errno = 0;
    check(remove(FIRST_NAME) != 0 && errno == ENOENT, "no second removal");
}

int main(int argc, char **argv)
{
    int lines = argc > 1 ? atoi(argv[1]) : 20;

    write_lines(FIRST_NAME, "w", 0, lines / 2);
    write_lines(FIRST_NAME, "a", lines / 2, lines);
    read_lines(FIRST_NAME, lines);
    seek_in(FIRST_NAME, lines);
    check(rename(FIRST_NAME, SECOND_NAME) == 0 && fopen(FIRST_NAME, "r") == NULL, "rename");
    overwrite(SECOND_NAME);
    binary(SECOND_NAME);
    check(remove(SECOND_NAME) == 0, "remove");
    errors();
    puts("files: ok");
    return 0;
}
