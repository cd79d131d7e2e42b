/*
 * Programs that write programs: the same address has different code at different times, and in different processes at
 * the same time.
 */
#include "minios.h"

#define CHILDREN 4
#define ROUNDS 20

typedef int function(void);

/* At this address, a function whose result is this byte. */
static function *write_function(uint32_t *code, int byte)
{
    code[0] = 0xe3a00000 | byte; /* mov r0, #byte */
    code[1] = 0xe12fff1e;        /* bx lr */
    sync();
    return (function *)code;
}

int main(void)
{
    uint32_t *code = (uint32_t *)brk(0);
    brk((char *)code + 4096);

    int sum = 0;
    for (int i = 1; i <= 10; i++)
        sum += write_function(code, i)();
    print("coder: ten functions at one address add up to %d\n", sum);

    int children[CHILDREN];
    function *mine = write_function(code, 100);
    for (int n = 0; n < CHILDREN; n++) {
        children[n] = fork();
        if (children[n] == 0) {
            int own = mine() == 100 ? 0 : KILLED; /* as inherited, then as rewritten here */
            for (int i = 0; i < ROUNDS; i++) {
                own += write_function(code, n + i % 2)();
                yield();
                own += mine();
            }
            exit(own);
        }
    }
    for (int n = 0; n < CHILDREN; n++)
        print("coder: child %d has %d from its own\n", n, result(children[n]));
    print("coder: the parent's is the same as ever: %s\n", yes(mine() == 100));
    return 0;
}
