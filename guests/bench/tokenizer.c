/*
 * A tokenizer and validator of a small C-like language: a state machine that looks at one byte at a time.
 *
 * Bytes are loaded one by one, and a switch over the state and chains of comparisons over the byte decide what follows.
 */
#include <string.h>

#include "kernel.h"

#define ROUNDS 13000
#define SIZE (64 * 1024)
#define MAX_DEPTH 16

enum state { BETWEEN, NAME, DECIMAL, ZERO, HEX, FRACTION, STRING, ESCAPE, SLASH, LINE_COMMENT, COMMENT, COMMENT_STAR };
enum token { NAMES, INTEGERS, FRACTIONS, STRINGS, OPERATORS, BRACKETS, COMMENTS, LINES, TOKENS };

static char text[SIZE];

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_hex_digit(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Counts the tokens in `counts`; -1, or the offset of the byte that is wrong. */
static int tokenize(const char *from, int size, uint32_t *counts)
{
    enum state state = BETWEEN;
    char brackets[MAX_DEPTH];
    int depth = 0;

    for (int i = 0; i < size; i++) {
        char c = from[i];

        counts[LINES] += c == '\n';
        switch (state) {
        case NAME:
            if (is_letter(c) || is_digit(c))
                continue;
            counts[NAMES]++;
            break;
        case ZERO:
            if (c == 'x') {
                state = HEX;
                continue;
            }
            /* fall through */
        case DECIMAL:
            if (is_digit(c)) {
                state = DECIMAL;
                continue;
            }
            if (c == '.') {
                state = FRACTION;
                continue;
            }
            counts[INTEGERS]++;
            break;
        case HEX:
            if (is_hex_digit(c))
                continue;
            counts[INTEGERS]++;
            break;
        case FRACTION:
            if (is_digit(c))
                continue;
            counts[FRACTIONS]++;
            break;
        case STRING:
            if (c == '\\')
                state = ESCAPE;
            else if (c == '\n')
                return i;
            else if (c == '"') {
                counts[STRINGS]++;
                state = BETWEEN;
            }
            continue;
        case ESCAPE:
            if (c != 'n' && c != '"' && c != '\\')
                return i;
            state = STRING;
            continue;
        case SLASH:
            if (c == '/' || c == '*') {
                state = c == '/' ? LINE_COMMENT : COMMENT;
                continue;
            }
            counts[OPERATORS]++;
            break;
        case LINE_COMMENT:
            if (c == '\n') {
                counts[COMMENTS]++;
                state = BETWEEN;
            }
            continue;
        case COMMENT:
            if (c == '*')
                state = COMMENT_STAR;
            continue;
        case COMMENT_STAR:
            if (c == '/') {
                counts[COMMENTS]++;
                state = BETWEEN;
            } else if (c != '*') {
                state = COMMENT;
            }
            continue;
        case BETWEEN:
            break;
        }

        /* Here no token is open, and `c` may begin one. */
        state = BETWEEN;
        switch (c) {
        case ' ':
        case '\n':
        case '\t':
            break;
        case '"':
            state = STRING;
            break;
        case '/':
            state = SLASH;
            break;
        case '0':
            state = ZERO;
            break;
        case '(':
        case '[':
        case '{':
            if (depth == MAX_DEPTH)
                return i;
            brackets[depth++] = c == '(' ? ')' : c + 2;
            break;
        case ')':
        case ']':
        case '}':
            if (depth == 0 || brackets[--depth] != c)
                return i;
            counts[BRACKETS]++;
            break;
        case '+':
        case '-':
        case '*':
        case '=':
        case '<':
        case ';':
        case ',':
            counts[OPERATORS]++;
            break;
        default:
            if (is_letter(c))
                state = NAME;
            else if (is_digit(c))
                state = DECIMAL;
            else
                return i;
        }
    }
    return state == BETWEEN && depth == 0 ? -1 : size;
}

static void write_text(void)
{
    static const char *const pieces[] = {
        "if (count < 100) { total = total + count; }\n", "name_of_it = \"a \\\"quoted\\\" text\\n\";\n",
        "/* a comment ** of\n   two lines */\n",           "mask = (0x1fF0 - 0) * table[index + 1];\n",
        "ratio = 3.14159 / 0.5; // and why\n",             "while (*next < limit) { use(\"\"); }\n",
        "\tcall(a, b, (c), [d, {e}]);\n",                  "x = y;\n",
    };
    uint32_t random = 1;
    int used = 0;

    memset(text, ' ', SIZE);
    for (;;) {
        const char *piece = pieces[next_random(&random) % 8];
        int length = strlen(piece);
        if (used + length >= SIZE)
            return;
        memcpy(text + used, piece, length);
        used += length;
    }
}

static uint32_t round_of_tokens(void)
{
    uint32_t counts[TOKENS] = {0}, sum = one;

    if (tokenize(text, SIZE, counts) != -1)
        return 0;
    /* A text that is cut in the middle is noticed. */
    if (tokenize(text, SIZE / 2 - 3, counts) == -1)
        return 0;
    for (int i = 0; i < TOKENS; i++)
        sum = mix(sum, counts[i]);
    return sum;
}

int main(int argc, char **argv)
{
    write_text();
    return run_rounds("tokenizer", round_of_tokens, 0xcdeeb705, ROUNDS, argc, argv);
}
