/* Floating point in software, long long, formats, time and memory. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int count, char **words)
{
    double sum = 0;
    int64_t product = 1;

    for (int turn = 1; turn <= 1000; turn++)
        sum += sqrt(turn) / 3;
    for (int turn = 1; turn <= 20; turn++)
        product *= turn;
    printf("%.12f %lld %a %e\n", sum, (long long)product, sum, pow(2, 0.5));
    char *memory = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 'x', 1 << 20);
    printf("%d %c\n", memory[0] == memory[(1 << 20) - 1], memory[5000]);
    char *large = malloc(8 << 20);
    memset(large, 1, 8 << 20);
    printf("%d %ld %d\n", large[(8 << 20) - 1], sysconf(_SC_PAGESIZE), count);
    for (int number = 1; number < count; number++)
        printf("[%s]\n", words[number]);
    return fflush(stdout);
}
