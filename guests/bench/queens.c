/*
 * All ways to place queens on boards of six to nine squares a side: recursion with backtracking, over arrays of
 * what is attacked.
 */
#include "kernel.h"

#define ROUNDS 4700
#define MAX_SIZE 9

struct board {
    int size;
    uint8_t column[MAX_SIZE], rising[2 * MAX_SIZE], falling[2 * MAX_SIZE]; /* attacked or not */
    uint8_t queen[MAX_SIZE];                                               /* by row, the column of its queen */
    uint32_t solutions, sum;
};

static void place_row(struct board *board, int row)
{
    int size = board->size;

    if (row == size) {
        board->solutions++;
        for (int i = 0; i < size; i++)
            board->sum = mix(board->sum, board->queen[i]);
        return;
    }
    for (int column = 0; column < size; column++) {
        uint8_t *rising = &board->rising[row + column], *falling = &board->falling[row - column + size];
        if (board->column[column] || *rising || *falling)
            continue;
        board->column[column] = *rising = *falling = 1;
        board->queen[row] = column;
        place_row(board, row + 1);
        board->column[column] = *rising = *falling = 0;
    }
}

static uint32_t round_of_queens(void)
{
    static const uint32_t known[] = {4, 40, 92, 352};
    uint32_t sum = 0;

    for (int size = 6; size <= MAX_SIZE; size++) {
        struct board board = {.size = size * one};
        place_row(&board, 0);
        if (board.solutions != known[size - 6])
            return 0;
        sum = mix(sum, board.sum);
    }
    return sum;
}

int main(int argc, char **argv)
{
    return run_rounds("queens", round_of_queens, 0xbaf9c25c, ROUNDS, argc, argv);
}
