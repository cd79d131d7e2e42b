/*
 * A Huffman coder and decoder: a heap, a tree, and streams of bits.
 */
#include "kernel.h"

#define ROUNDS 5600
#define SIZE (32 * 1024)
#define SYMBOLS 256
#define NODES (2 * SYMBOLS - 1)

static uint8_t text[SIZE], coded[SIZE], decoded[SIZE];

struct tree {
    uint32_t weight[NODES];
    int16_t child[NODES][2]; /* of a node that is not a leaf; the leaves are the first nodes */
    int root;
};

/* The nodes that have no parent yet, the lightest first; of two that weigh the same, the one with the lower number. */
struct heap {
    int16_t node[SYMBOLS + 1]; /* from index 1 on */
    int count;
};

static int lighter(const struct tree *tree, int a, int b)
{
    return tree->weight[a] < tree->weight[b] || (tree->weight[a] == tree->weight[b] && a < b);
}

static void heap_push(struct heap *heap, const struct tree *tree, int node)
{
    int place = ++heap->count;

    for (; place > 1 && lighter(tree, node, heap->node[place / 2]); place /= 2)
        heap->node[place] = heap->node[place / 2];
    heap->node[place] = node;
}

static int heap_pop(struct heap *heap, const struct tree *tree)
{
    int top = heap->node[1], last = heap->node[heap->count--], place = 1;

    for (;;) {
        int child = 2 * place;
        if (child > heap->count)
            break;
        if (child < heap->count && lighter(tree, heap->node[child + 1], heap->node[child]))
            child++;
        if (!lighter(tree, heap->node[child], last))
            break;
        heap->node[place] = heap->node[child];
        place = child;
    }
    heap->node[place] = last;
    return top;
}

static void build_tree(struct tree *tree, const uint8_t *from, int size)
{
    struct heap heap = {.count = 0};
    int nodes = SYMBOLS;

    for (int i = 0; i < SYMBOLS; i++)
        tree->weight[i] = 0;
    for (int i = 0; i < size; i++)
        tree->weight[from[i]]++;
    for (int i = 0; i < SYMBOLS; i++)
        if (tree->weight[i] != 0)
            heap_push(&heap, tree, i);
    while (heap.count > 1) {
        int a = heap_pop(&heap, tree), b = heap_pop(&heap, tree);
        tree->weight[nodes] = tree->weight[a] + tree->weight[b];
        tree->child[nodes][0] = a;
        tree->child[nodes][1] = b;
        heap_push(&heap, tree, nodes++);
    }
    tree->root = heap.node[1];
}

struct code {
    uint32_t bits;
    int length;
};

/* No code is longer than 21 bits: that would take a text of more than SIZE bytes. */
static void assign_codes(const struct tree *tree, int node, struct code code, struct code *codes)
{
    if (node < SYMBOLS) {
        codes[node] = code;
        return;
    }
    for (uint32_t side = 0; side < 2; side++)
        assign_codes(tree, tree->child[node][side], (struct code){code.bits << 1 | side, code.length + 1}, codes);
}

/* The number of bytes written. */
static int encode(const struct code *codes, const uint8_t *from, int size, uint8_t *out)
{
    uint8_t *start = out;
    uint32_t bits = 0;
    int waiting = 0;

    for (int i = 0; i < size; i++) {
        struct code code = codes[from[i]];
        bits = bits << code.length | code.bits;
        for (waiting += code.length; waiting >= 8; waiting -= 8)
            *out++ = bits >> (waiting - 8);
    }
    *out++ = bits << (8 - waiting);
    return out - start;
}

/* Decodes `size` bytes. */
static void decode(const struct tree *tree, const uint8_t *in, uint8_t *out, int size)
{
    uint32_t bits = 0;
    int left = 0;

    for (int i = 0; i < size; i++) {
        int node = tree->root;
        while (node >= SYMBOLS) {
            if (left == 0) {
                bits = *in++;
                left = 8;
            }
            node = tree->child[node][bits >> --left & 1];
        }
        out[i] = node;
    }
}

static uint32_t round_of_coding(void)
{
    struct tree tree;
    struct code codes[SYMBOLS];
    uint32_t sum = one;

    build_tree(&tree, text, SIZE);
    assign_codes(&tree, tree.root, (struct code){0, 0}, codes);
    int size = encode(codes, text, SIZE, coded);
    for (int i = 0; i < size; i++)
        sum = mix(sum, coded[i]);
    decode(&tree, coded, decoded, SIZE);
    for (int i = 0; i < SIZE; i++)
        if (decoded[i] != text[i])
            return 0;
    return mix(sum, size);
}

int main(int argc, char **argv)
{
    write_words(text, SIZE);
    return run_rounds("huffman", round_of_coding, 0x086d6d55, ROUNDS, argc, argv);
}
