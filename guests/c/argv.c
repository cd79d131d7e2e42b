/*
 * The command line (SYS_GET_CMDLINE) and the exit code (SYS_EXIT_EXTENDED).
 *
 * argv [code] [anything]...    prints its arguments, exits with `code`
 *
 * argv[0] is not printed: it is whatever the machine chose to call the program.
 */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    printf("argc = %d\n", argc);
    for (int i = 1; i < argc; i++)
        printf("argv[%d] = \"%s\"\n", i, argv[i]);
    printf("argv[argc] is %s\n", argv[argc] == NULL ? "NULL" : "not NULL");
    return argc > 1 ? atoi(argv[1]) : 0;
}
