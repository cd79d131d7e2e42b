/*
 * A sudoku solver: backtracking over bit sets, always at the cell with the fewest candidates.
 *
 * sudoku [rounds]    solves the puzzle that many times, with its digits renamed each time
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELLS 81
#define ALL_DIGITS 0x1ff

struct board {
    uint8_t digit[CELLS]; /* 0 is an empty cell */
    uint16_t row[9], column[9], box[9]; /* the digits in use, as bit sets */
};

/* One solution; the 55 empty cells take 131 tries, so there is some backtracking. */
static const char puzzle[CELLS + 1] =
    "5..3..........6.5...6.714....4.....8..1.........9.76.4.17..82.52.8.1.....53..4...";

static int box_of(int cell)
{
    return cell / 27 * 3 + cell % 9 / 3;
}

static unsigned candidates(const struct board *b, int cell)
{
    return ALL_DIGITS & ~(b->row[cell / 9] | b->column[cell % 9] | b->box[box_of(cell)]);
}

/* Puts a digit in, or takes it out again. */
static void toggle(struct board *b, int cell, int digit)
{
    unsigned bit = 1u << (digit - 1);

    b->digit[cell] ^= digit;
    b->row[cell / 9] ^= bit;
    b->column[cell % 9] ^= bit;
    b->box[box_of(cell)] ^= bit;
}

static int solve(struct board *b, long *placed)
{
    int best = -1, fewest = 10;

    for (int cell = 0; cell < CELLS && fewest > 1; cell++) {
        if (b->digit[cell] != 0)
            continue;
        int count = __builtin_popcount(candidates(b, cell));
        if (count < fewest) {
            fewest = count;
            best = cell;
        }
    }
    if (best < 0)
        return 1;
    for (unsigned left = candidates(b, best); left != 0; left &= left - 1) {
        int digit = __builtin_ctz(left) + 1;
        toggle(b, best, digit);
        ++*placed;
        if (solve(b, placed))
            return 1;
        toggle(b, best, digit);
    }
    return 0;
}

/* Digit d of the puzzle becomes d + shift, round 9. */
static void load(struct board *b, int shift)
{
    memset(b, 0, sizeof *b);
    for (int cell = 0; cell < CELLS; cell++)
        if (puzzle[cell] != '.')
            toggle(b, cell, (puzzle[cell] - '1' + shift) % 9 + 1);
}

/* Every row, column and box holds every digit, and the given digits are where they were. */
static int is_solution(const struct board *b, int shift)
{
    for (int cell = 0; cell < CELLS; cell++) {
        int given = puzzle[cell] == '.' ? 0 : (puzzle[cell] - '1' + shift) % 9 + 1;
        if (b->digit[cell] < 1 || b->digit[cell] > 9 || (given != 0 && b->digit[cell] != given))
            return 0;
    }
    for (int i = 0; i < 9; i++) {
        unsigned row = 0, column = 0, box = 0;
        for (int j = 0; j < 9; j++) {
            row |= 1u << b->digit[9 * i + j];
            column |= 1u << b->digit[9 * j + i];
            box |= 1u << b->digit[27 * (i / 3) + 3 * (i % 3) + 9 * (j / 3) + j % 3];
        }
        if (row != ALL_DIGITS << 1 || column != ALL_DIGITS << 1 || box != ALL_DIGITS << 1)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    struct board board;
    long placed = 0;

    for (int round = 0; round < rounds; round++) {
        load(&board, round % 9);
        if (!solve(&board, &placed) || !is_solution(&board, round % 9)) {
            puts("sudoku: wrong");
            return 1;
        }
    }
    for (int cell = 0; cell < CELLS; cell++)
        printf("%d%c", board.digit[cell], cell % 9 == 8 ? '\n' : ' ');
    printf("%ld digits tried\nsudoku: ok\n", placed);
    return 0;
}
