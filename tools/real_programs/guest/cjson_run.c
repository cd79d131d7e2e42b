// Parse a JSON file a number of times with cJSON, print it to memory, and compare: cjson_run FILE [TIMES]
#include "cJSON.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned count(const cJSON *item)
{
    unsigned found = 0;
    for (; item; item = item->next)
        found += 1 + count(item->child);
    return found;
}

int main(int argc, char **argv)
{
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: cjson_run FILE [TIMES]\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *source = malloc(size + 1);
    source[fread(source, 1, size, file)] = 0;
    int times = argc > 2 ? atoi(argv[2]) : 1;
    unsigned items = 0;
    for (int i = 0; i < times; i++) {
        cJSON *parsed = cJSON_Parse(source);
        if (parsed == NULL) {
            printf("error before: %.20s\n", cJSON_GetErrorPtr());
            return 1;
        }
        items = count(parsed);
        char *printed = cJSON_PrintUnformatted(parsed);
        cJSON_Delete(parsed);
        free(source);
        source = printed;
    }
    printf("%u items, %u bytes\n", items, (unsigned)strlen(source));
    return 0;
}
