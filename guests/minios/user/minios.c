#include "minios.h"

void exit(int status)
{
    system_call(SYS_EXIT, status, 0);
    __builtin_unreachable();
}

int result(int pid)
{
    int status;
    return wait(pid, &status) == pid ? status : KILLED;
}

int spawn(const char *name, int argument)
{
    int pid = fork();
    if (pid == 0) {
        exec(name, argument);
        exit(KILLED);
    }
    return pid;
}

struct line {
    unsigned length;
    char text[128];
};

static void put(void *context, char c)
{
    struct line *line = context;
    if (line->length < sizeof line->text)
        line->text[line->length++] = c;
}

void print(const char *text, ...)
{
    struct line line;
    line.length = 0;
    va_list arguments;
    va_start(arguments, text);
    format(put, &line, text, arguments);
    va_end(arguments);
    write(line.text, line.length);
}
