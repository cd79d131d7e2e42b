/* Threads that count under a lock and under an atomic, and hand a value over by a condition. */
#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ready = PTHREAD_COND_INITIALIZER;
static int counted, atomic, handed = -1;

static void *count(void *argument)
{
    for (int turn = 0; turn < 10000; turn++) {
        pthread_mutex_lock(&lock);
        counted++;
        pthread_mutex_unlock(&lock);
        __sync_fetch_and_add(&atomic, 1);
    }
    return argument;
}

static void *hand_over(void *argument)
{
    pthread_mutex_lock(&lock);
    handed = *(int *)argument;
    pthread_cond_signal(&ready);
    pthread_mutex_unlock(&lock);
    return 0;
}

int main(void)
{
    pthread_t threads[4];
    int value = 42;

    for (int number = 0; number < 4; number++)
        pthread_create(&threads[number], 0, count, 0);
    for (int number = 0; number < 4; number++)
        pthread_join(threads[number], 0);
    pthread_create(&threads[0], 0, hand_over, &value);
    pthread_mutex_lock(&lock);
    while (handed < 0)
        pthread_cond_wait(&ready, &lock);
    pthread_mutex_unlock(&lock);
    pthread_join(threads[0], 0);
    printf("%d %d %d\n", counted, atomic, handed);
    return 0;
}
