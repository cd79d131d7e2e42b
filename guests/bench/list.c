/*
 * A linked list of two megabytes, built in shuffled order, traversed, reversed and merge-sorted: loads that depend on
 * loads and often miss the cache.
 */
#include <stddef.h>

#include "kernel.h"

#define ROUNDS 51
#define COUNT (128 * 1024)

struct node {
    struct node *next;
    uint32_t key;
    uint32_t payload[2];
};

static struct node pool[COUNT];
static uint32_t order[COUNT];

/* Links the nodes of the pool in shuffled order. */
static struct node *build(uint32_t random)
{
    struct node *head = NULL;

    for (int i = 0; i < COUNT; i++) {
        struct node *node = &pool[order[i]];
        node->key = next_random(&random);
        node->payload[0] = i;
        node->payload[1] = ~i;
        node->next = head;
        head = node;
    }
    return head;
}

static uint32_t sum_of(const struct node *node)
{
    uint32_t sum = 0;

    for (; node != NULL; node = node->next)
        sum = mix(sum, node->key + node->payload[0]);
    return sum;
}

static struct node *reverse(struct node *node)
{
    struct node *reversed = NULL;

    while (node != NULL) {
        struct node *next = node->next;
        node->next = reversed;
        reversed = node;
        node = next;
    }
    return reversed;
}

static struct node *merge(struct node *a, struct node *b)
{
    struct node *head, **end = &head;

    while (a != NULL && b != NULL) {
        struct node **smaller = b->key < a->key ? &b : &a;
        *end = *smaller;
        end = &(*smaller)->next;
        *smaller = *end;
    }
    *end = a != NULL ? a : b;
    return head;
}

/* Sorts the first `count` nodes, and takes them off the list. */
static struct node *sort(struct node **list, int count)
{
    if (count == 1) {
        struct node *node = *list;
        *list = node->next;
        node->next = NULL;
        return node;
    }
    struct node *first = sort(list, count / 2);
    return merge(first, sort(list, count - count / 2));
}

static uint32_t round_of_lists(void)
{
    struct node *list = build(one);
    uint32_t sum = sum_of(list);

    list = reverse(list);
    sum = mix(sum, sum_of(list));
    list = sort(&list, COUNT);
    for (const struct node *node = list; node->next != NULL; node = node->next)
        if (node->key > node->next->key)
            return 0;
    return mix(sum, sum_of(list));
}

int main(int argc, char **argv)
{
    uint32_t random = 1;

    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t other = next_random(&random) % (i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    return run_rounds("list", round_of_lists, 0x4282d863, ROUNDS, argc, argv);
}
