/* A producer and a consumer without a pipe: an item is the status of a process, and wait() the way to get it. */
#include "minios.h"

#define ITEMS 5

static void produce(int n)
{
    int item = 1;
    for (int i = 0; i < n; i++) {
        item *= 3;
        yield();
    }
    exit(item);
}

int main(void)
{
    int producers[ITEMS], sum = 0;
    for (int i = 0; i < ITEMS; i++) {
        producers[i] = fork();
        if (producers[i] == 0)
            produce(i);
    }
    for (int i = ITEMS - 1; i >= 0; i--) { /* the last one first: the others' items wait */
        int item = result(producers[i]);
        print("consumer: item %d is %d\n", i, item);
        sum += item;
    }
    print("consumer: together %d\n", sum);
    return 0;
}
