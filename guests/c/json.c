/*
 * A JSON parser and printer: recursive descent, a tree on the heap, strings, strtod() and printf("%g").
 *
 * json [rounds]    parses, prints and parses again that many times
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUL, BOOL, NUMBER, STRING, ARRAY, OBJECT };

struct value {
    enum kind kind;
    int boolean;
    double number;
    char *string;
    char *key;           /* when it is a member of an object */
    struct value *child; /* the first of an array or object */
    struct value *next;
};

static const char document[] =
    "{\"name\": \"dbt\", \"guest\": {\"arch\": \"ARMv7-A\", \"thumb\": false, \"registers\": 16},\n"
    " \"pages\": [4096, 65536, 1048576, 16777216], \"tiers\": [\"reference\", \"threaded\", \"region\"],\n"
    " \"empty\": [[], {}, \"\"], \"none\": null, \"ok\": true,\n"
    " \"escapes\": \"tab\\t quote\\\" backslash\\\\ newline\\n slash\\/ \\u0041\\u00e9\",\n"
    " \"numbers\": [0, -1, 3.25, 1e3, -2.5E-3, 0.1, 123456789]}";

static const char *const malformed[] = {
    "", "{", "[1,]", "{\"a\" 1}", "\"open", "[1 2]", "tru", "01", "-", "{\"a\":1,}", "\"\\x\"", "[1]]",
};

static struct value *parse_value(const char **at);

static void skip_space(const char **at)
{
    while (isspace((unsigned char)**at))
        ++*at;
}

/* Takes the character if it is next, after white space. */
static int accept(const char **at, char c)
{
    skip_space(at);
    if (**at != c)
        return 0;
    ++*at;
    return 1;
}

static struct value *new_value(enum kind kind)
{
    struct value *v = calloc(1, sizeof *v);

    if (v == NULL) {
        puts("out of memory");
        exit(1);
    }
    v->kind = kind;
    return v;
}

static void free_value(struct value *v)
{
    while (v != NULL) {
        struct value *next = v->next;
        free_value(v->child);
        free(v->string);
        free(v->key);
        free(v);
        v = next;
    }
}

/* The four hexadecimal digits of a code point, or -1. */
static int parse_code(const char *digits)
{
    int code = 0;

    for (int i = 0; i < 4; i++) {
        int digit = tolower((unsigned char)digits[i]);
        if (!isxdigit(digit))
            return -1;
        code = code * 16 + (isdigit(digit) ? digit - '0' : digit - 'a' + 10);
    }
    return code;
}

/* One code point below U+0800 as UTF-8. */
static char *put_utf8(char *out, int code)
{
    if (code < 0x80) {
        *out++ = code;
    } else {
        *out++ = 0xc0 | code >> 6;
        *out++ = 0x80 | (code & 0x3f);
    }
    return out;
}

static char *parse_string(const char **at)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *in = *at;

    if (*in++ != '"')
        return NULL;
    char *string = malloc(strlen(in) + 1), *out = string;
    while (*in != '"' && *in != '\0') {
        if (*in != '\\') {
            *out++ = *in++;
            continue;
        }
        const char *escape = in[1] == '\0' ? NULL : strchr(escapes, in[1]);
        int code = in[1] == 'u' ? parse_code(in + 2) : -1;
        if (escape != NULL) {
            *out++ = meanings[escape - escapes];
            in += 2;
        } else if (code >= 0 && code < 0x800) {
            out = put_utf8(out, code);
            in += 6;
        } else {
            break;
        }
    }
    if (*in != '"') {
        free(string);
        return NULL;
    }
    *out = '\0';
    *at = in + 1;
    return string;
}

static struct value *parse_number(const char **at)
{
    const char *digits = *at + (**at == '-');
    char *end;

    if (!isdigit((unsigned char)digits[0]) || (digits[0] == '0' && isdigit((unsigned char)digits[1])))
        return NULL;
    struct value *v = new_value(NUMBER);
    v->number = strtod(*at, &end);
    *at = end;
    return v;
}

static struct value *parse_word(const char **at)
{
    static const struct {
        const char *word;
        enum kind kind;
        int boolean;
    } words[] = {{"null", NUL, 0}, {"false", BOOL, 0}, {"true", BOOL, 1}};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].word);
        if (strncmp(*at, words[i].word, length) == 0) {
            struct value *v = new_value(words[i].kind);
            v->boolean = words[i].boolean;
            *at += length;
            return v;
        }
    }
    return NULL;
}

/* The elements of an array or the members of an object, after the opening bracket. */
static struct value *parse_children(const char **at, enum kind kind)
{
    char close = kind == ARRAY ? ']' : '}';
    struct value *parent = new_value(kind), **tail = &parent->child;

    if (accept(at, close))
        return parent;
    do {
        char *key = NULL;
        if (kind == OBJECT) {
            skip_space(at);
            key = parse_string(at);
            if (key == NULL || !accept(at, ':')) {
                free(key);
                free_value(parent);
                return NULL;
            }
        }
        *tail = parse_value(at);
        if (*tail == NULL) {
            free(key);
            free_value(parent);
            return NULL;
        }
        (*tail)->key = key;
        tail = &(*tail)->next;
    } while (accept(at, ','));
    if (!accept(at, close)) {
        free_value(parent);
        return NULL;
    }
    return parent;
}

static struct value *parse_value(const char **at)
{
    skip_space(at);
    if (accept(at, '['))
        return parse_children(at, ARRAY);
    if (accept(at, '{'))
        return parse_children(at, OBJECT);
    if (**at != '"')
        return **at == '-' || isdigit((unsigned char)**at) ? parse_number(at) : parse_word(at);

    char *string = parse_string(at);
    if (string == NULL)
        return NULL;
    struct value *v = new_value(STRING);
    v->string = string;
    return v;
}

/* The whole text, or NULL when it is malformed. */
static struct value *parse(const char *text)
{
    struct value *v = parse_value(&text);

    skip_space(&text);
    if (*text != '\0') {
        free_value(v);
        return NULL;
    }
    return v;
}

static char *print_string(char *out, const char *string)
{
    *out++ = '"';
    for (; *string != '\0'; string++) {
        if (*string == '"' || *string == '\\')
            *out++ = '\\';
        if ((unsigned char)*string < ' ')
            out += sprintf(out, "\\u%04x", *string);
        else
            *out++ = *string;
    }
    *out++ = '"';
    *out = '\0';
    return out;
}

static char *print_value(char *out, const struct value *v)
{
    switch (v->kind) {
    case NUL:
        return out + sprintf(out, "null");
    case BOOL:
        return out + sprintf(out, v->boolean ? "true" : "false");
    case NUMBER:
        return out + sprintf(out, "%.15g", v->number);
    case STRING:
        return print_string(out, v->string);
    case ARRAY:
    case OBJECT:
        *out++ = v->kind == ARRAY ? '[' : '{';
        for (const struct value *child = v->child; child != NULL; child = child->next) {
            if (child->key != NULL) {
                out = print_string(out, child->key);
                *out++ = ':';
            }
            out = print_value(out, child);
            if (child->next != NULL)
                *out++ = ',';
        }
        *out++ = v->kind == ARRAY ? ']' : '}';
        *out = '\0';
    }
    return out;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    static char text[2048], again[2048];

    for (int round = 0; round < rounds; round++) {
        struct value *first = parse(document);
        if (first == NULL) {
            puts("the document does not parse");
            return 1;
        }
        print_value(text, first);
        struct value *second = parse(text);
        if (second == NULL) {
            puts("the printed document does not parse");
            return 1;
        }
        print_value(again, second);
        free_value(first);
        free_value(second);
        if (strcmp(text, again) != 0) {
            puts("printed twice, and different");
            return 1;
        }
    }
    puts(text);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        if (parse(malformed[i]) != NULL) {
            printf("accepted, but malformed: %s\n", malformed[i]);
            return 1;
        }
    }
    puts("json: ok");
    return 0;
}
