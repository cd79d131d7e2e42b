// Parse an XML file a number of times with expat, and count what is in it: expat_count FILE [TIMES]
#include "expat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct counts {
    unsigned elements, attributes, text, depth, deepest, names;
};

static void start(void *data, const XML_Char *name, const XML_Char **attributes)
{
    struct counts *counts = data;
    counts->elements++;
    if (++counts->depth > counts->deepest)
        counts->deepest = counts->depth;
    for (; *name; name++)
        counts->names = counts->names * 31 + *name;
    for (; *attributes; attributes += 2)
        counts->attributes++;
}

static void end(void *data, const XML_Char *name)
{
    (void)name;
    ((struct counts *)data)->depth--;
}

static void text(void *data, const XML_Char *characters, int length)
{
    (void)characters;
    ((struct counts *)data)->text += length;
}

int main(int argc, char **argv)
{
    static char block[4096];
    int times = argc > 2 ? atoi(argv[2]) : 1;
    struct counts counts;
    for (int i = 0; i < times; i++) {
        FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
        XML_Parser parser = XML_ParserCreate(NULL);
        if (file == NULL || parser == NULL) {
            printf("usage: expat_count FILE [TIMES]\n");
            return 2;
        }
        memset(&counts, 0, sizeof counts);
        XML_SetUserData(parser, &counts);
        XML_SetElementHandler(parser, start, end);
        XML_SetCharacterDataHandler(parser, text);
        size_t size;
        do {
            size = fread(block, 1, sizeof block, file);
            if (XML_Parse(parser, block, size, size < sizeof block) == XML_STATUS_ERROR) {
                printf("line %lu: %s\n", XML_GetCurrentLineNumber(parser), XML_ErrorString(XML_GetErrorCode(parser)));
                return 1;
            }
        } while (size == sizeof block);
        XML_ParserFree(parser);
        fclose(file);
    }
    printf("%u elements, %u attributes, %u bytes of text, %u levels, names %08x\n", counts.elements, counts.attributes,
           counts.text, counts.deepest, counts.names);
    return 0;
}
