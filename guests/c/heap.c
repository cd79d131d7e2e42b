/*
 * The heap: malloc, calloc, realloc and free in random order, a binary tree, a list that is reversed.
 *
 * heap [rounds]    each of 150 random steps and a tree with 150 insertions
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 32
#define STEPS 150

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % limit;
}

static void *must(void *memory)
{
    if (memory == NULL) {
        puts("out of memory");
        exit(1);
    }
    return memory;
}

static struct block {
    uint8_t *bytes;
    int size;
    uint8_t pattern;
} blocks[SLOTS];

static int is_intact(const struct block *b, int size)
{
    for (int i = 0; i < size; i++)
        if (b->bytes[i] != b->pattern)
            return 0;
    return 1;
}

/* Allocates, grows or shrinks, or frees one block, each of which holds its own pattern. */
static int step(int number)
{
    struct block *b = &blocks[random_below(SLOTS)];
    int size = random_below(16) == 0 ? 1 + random_below(1000) : 1 + random_below(60);

    if (b->bytes == NULL) {
        b->bytes = must(number % 2 ? malloc(size) : calloc(size, 1));
        b->pattern = 0;
        b->size = size;
        if (number % 2 == 0 && !is_intact(b, size))
            return 0;
    } else if (random_below(2)) {
        int kept = size < b->size ? size : b->size;
        b->bytes = must(realloc(b->bytes, size));
        if (!is_intact(b, kept))
            return 0;
        b->size = size;
    } else {
        int good = is_intact(b, b->size);
        free(b->bytes);
        b->bytes = NULL;
        return good;
    }
    b->pattern = number;
    memset(b->bytes, b->pattern, b->size);
    return (uintptr_t)b->bytes % 8 == 0;
}

struct node {
    struct node *left, *right;
    uint32_t key;
};

static int insert(struct node **at, uint32_t key)
{
    while (*at != NULL) {
        if ((*at)->key == key)
            return 0;
        at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    }
    *at = must(calloc(1, sizeof **at));
    (*at)->key = key;
    return 1;
}

/* Takes the tree apart in order, into a list linked through `right`, last first. */
static struct node *take_apart(struct node *tree, struct node *list)
{
    if (tree == NULL)
        return list;

    struct node *right = tree->right;
    list = take_apart(tree->left, list);
    tree->right = list;
    return take_apart(right, tree);
}

static struct node *reverse(struct node *list)
{
    struct node *reversed = NULL;

    while (list != NULL) {
        struct node *next = list->right;
        list->right = reversed;
        reversed = list;
        list = next;
    }
    return reversed;
}

/* The number of nodes, or -1 when they are not in ascending order; frees them. */
static int count_and_free(struct node *list)
{
    int count = 0, ordered = 1;

    while (list != NULL) {
        struct node *next = list->right;
        ordered &= next == NULL || list->key < next->key;
        free(list);
        list = next;
        count++;
    }
    return ordered ? count : -1;
}

static int allocate_at_random(void)
{
    for (int i = 0; i < STEPS; i++) {
        if (!step(i)) {
            printf("wrong in step %d\n", i);
            return 0;
        }
    }
    return 1;
}

/* The number of keys that went in and came out again in order, or -1. */
static int sort_by_tree(void)
{
    struct node *tree = NULL;
    int inserted = 0;

    for (int i = 0; i < STEPS; i++)
        inserted += insert(&tree, random_below(STEPS * 4));
    return count_and_free(reverse(take_apart(tree, NULL))) == inserted ? inserted : -1;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    int live = 0, keys = 0;

    for (int round = 0; round < rounds; round++) {
        keys = allocate_at_random() ? sort_by_tree() : -1;
        if (keys < 0) {
            puts("heap: wrong");
            return 1;
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        live += blocks[i].bytes != NULL;
        free(blocks[i].bytes);
    }
    printf("%d blocks left, %d keys in the last tree\nheap: ok\n", live, keys);
    return 0;
}
