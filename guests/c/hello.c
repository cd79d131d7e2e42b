/*
 * The smallest program: newlib's start-up code, buffered stdio, exit.
 *
 * hello [lines]    says it more than once
 */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int lines = argc > 1 ? atoi(argv[1]) : 1;

    for (int i = 0; i < lines; i++)
        puts("Hello from ARM!");
    return 0;
}
