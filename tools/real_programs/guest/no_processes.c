// newlib's semihosting library has no processes: these fail, as the manual page allows.
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
