/* Processes that sleep, all at the same time, while the processor waits for the timer. */
#include "minios.h"

#define SLEEPERS 4

int main(void)
{
    int sleepers[SLEEPERS];
    for (int i = 0; i < SLEEPERS; i++) {
        sleepers[i] = fork();
        if (sleepers[i] == 0) {
            int ticks = 20 - 5 * i, start = time();
            sleep(ticks);
            exit(time() - start >= ticks ? ticks : 0);
        }
    }
    for (int i = 0; i < SLEEPERS; i++)
        print("sleepers: %d has slept for at least %d ticks\n", i + 1, result(sleepers[i]));
    sleep(2); /* and now nobody is awake */
    return 0;
}
