// Run a JavaScript file with QuickJS: quickjs_run FILE
#include "quickjs.h"

#include <stdio.h>
#include <stdlib.h>

static JSValue print(JSContext *context, JSValueConst self, int count, JSValueConst *values)
{
    (void)self;
    for (int i = 0; i < count; i++) {
        const char *text = JS_ToCString(context, values[i]);
        printf(i ? " %s" : "%s", text);
        JS_FreeCString(context, text);
    }
    putchar('\n');
    return JS_UNDEFINED;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: quickjs_run FILE\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *source = malloc(size + 1);
    source[fread(source, 1, size, file)] = 0;
    JSContext *context = JS_NewContext(JS_NewRuntime());
    JSValue global = JS_GetGlobalObject(context);
    JS_SetPropertyStr(context, global, "print", JS_NewCFunction(context, print, "print", 1));
    JSValue value = JS_Eval(context, source, size, argv[1], JS_EVAL_TYPE_GLOBAL);
    if (!JS_IsException(value))
        return 0;
    printf("%s\n", JS_ToCString(context, JS_GetException(context)));
    return 1;
}
