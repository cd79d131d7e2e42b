/* Processes, pipes, signals and their handlers, and an exit status. With the argument "execute": executed programs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t seen;

static void note(int number)
{
    seen = number;
}

int main(int count, char **words)
{
    int ends[2], status;
    char text[16] = "";
    struct sigaction action = {.sa_handler = note};

    setvbuf(stdout, 0, _IOLBF, 0);
    if (count > 1 && strcmp(words[1], "execute")) {
        printf("executed with %s\n", words[1]);
        return 3;
    }
    if (count > 1) {
        if (!fork())
            _exit(execl("/proc/self/exe", words[0], "a word", (char *)0) ? 99 : 0);
        wait(&status);
        printf("status %d\n", WEXITSTATUS(status));
        return 0;
    }
    if (pipe(ends))
        return 1;
    pid_t child = fork();
    if (!child) {
        if (write(ends[1], "from below", 10) != 10)
            abort();
        _exit(9);
    }
    waitpid(child, &status, 0);
    printf("%d %zd %s\n", WEXITSTATUS(status), read(ends[0], text, sizeof text - 1), text);
    sigaction(SIGUSR1, &action, 0);
    kill(getpid(), SIGUSR1);
    printf("signal %d\n", seen == SIGUSR1);
    action.sa_handler = note;
    sigaction(SIGALRM, &action, 0);
    alarm(1);
    pause();
    printf("alarm %d\n", seen == SIGALRM);
    child = fork();
    if (!child)
        abort();
    waitpid(child, &status, 0);
    printf("%s\n", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "no signal");
    return 17;
}
