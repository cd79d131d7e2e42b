/* The modules of a kernel that has its drivers outside: the initial RAM disk has them as /modules/00, /modules/01, ... */
#include "modules.h"
#include "system.h"

void load_modules(void)
{
    char path[] = "/modules/00";
    char *ten = path + 9, *one = path + 10;

    for (; *ten <= '9'; ++*ten)
        for (*one = '0'; *one <= '9'; ++*one) {
            long file = call(SYS_OPEN, (long)path, READ_ONLY | CLOSE_ON_EXEC, 0, 0, 0);

            if (file < 0)
                return;
            /* If it cannot be loaded, the kernel says why, and what the host prints has it. */
            call(SYS_FINIT_MODULE, file, (long)"", 0, 0, 0);
            call(SYS_CLOSE, file, 0, 0, 0, 0);
            call(SYS_UNLINK, (long)path, 0, 0, 0, 0); /* The RAM is better used otherwise. */
        }
}
