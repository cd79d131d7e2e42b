// newlib's semihosting library has no processes and no current directory: these functions fail, as they may.
#include <stddef.h>
#include <stdio.h>

FILE *popen(const char *command, const char *mode)
{
    (void)command;
    (void)mode;
    return NULL;
}

int pclose(FILE *stream)
{
    (void)stream;
    return -1;
}

int execvp(const char *file, char *const arguments[])
{
    (void)file;
    (void)arguments;
    return -1;
}

char *getcwd(char *name, size_t size)
{
    (void)name;
    (void)size;
    return NULL;
}
