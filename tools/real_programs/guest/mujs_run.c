// Run a JavaScript file with MuJS: mujs_run FILE
#include "mujs.h"

#include <stdio.h>

static void print(js_State *js)
{
    for (int i = 1; i < js_gettop(js); i++)
        printf(i > 1 ? " %s" : "%s", js_tostring(js, i));
    putchar('\n');
    js_pushundefined(js);
}

int main(int argc, char **argv)
{
    js_State *js = js_newstate(NULL, NULL, JS_STRICT);
    js_newcfunction(js, print, "print", 0);
    js_setglobal(js, "print");
    return argc < 2 || js_dofile(js, argv[1]);
}
