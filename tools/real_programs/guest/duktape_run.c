// Run a JavaScript file with Duktape: duktape_run FILE
#include "duktape.h"

#include <stdio.h>
#include <stdlib.h>

static duk_ret_t print(duk_context *context)
{
    for (int i = 0; i < duk_get_top(context); i++)
        printf(i ? " %s" : "%s", duk_to_string(context, i));
    putchar('\n');
    return 0;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: duktape_run FILE\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *source = malloc(size);
    size = fread(source, 1, size, file);
    duk_context *context = duk_create_heap_default();
    duk_push_c_function(context, print, DUK_VARARGS);
    duk_put_global_string(context, "print");
    int failed = duk_peval_lstring(context, source, size);
    if (failed)
        printf("%s\n", duk_safe_to_string(context, -1));
    duk_destroy_heap(context);
    return failed != 0;
}
