/*
 * Quicksort of records through a comparison callback: indirect calls and branches that cannot be predicted.
 */
#include "kernel.h"

#define ROUNDS 420
#define COUNT 10000
#define SHORT 8 /* what is not longer is sorted by insertion */

struct record {
    uint32_t key;
    uint32_t weight;
    char label[8];
};

typedef int compare_fn(const struct record *, const struct record *);

static struct record unsorted[COUNT], records[COUNT];

static int by_key(const struct record *a, const struct record *b)
{
    return (a->key > b->key) - (a->key < b->key);
}

/* Heaviest first; most weights occur many times. */
static int by_weight(const struct record *a, const struct record *b)
{
    if (a->weight != b->weight)
        return a->weight < b->weight ? 1 : -1;
    return by_key(a, b);
}

static int by_label(const struct record *a, const struct record *b)
{
    for (int i = 0; i < 8; i++)
        if (a->label[i] != b->label[i])
            return a->label[i] < b->label[i] ? -1 : 1;
    return by_key(a, b);
}

static compare_fn *const orders[] = {by_key, by_weight, by_label};

static void swap(struct record *a, struct record *b)
{
    struct record t = *a;
    *a = *b;
    *b = t;
}

static void insertion_sort(struct record *first, struct record *last, compare_fn *compare)
{
    for (struct record *next = first + 1; next <= last; next++) {
        struct record record = *next, *hole = next;
        for (; hole > first && compare(&record, hole - 1) < 0; hole--)
            *hole = hole[-1];
        *hole = record;
    }
}

/* Hoare's partition around the middle element. */
static void quicksort(struct record *first, struct record *last, compare_fn *compare)
{
    while (last - first >= SHORT) {
        struct record pivot = first[(last - first) / 2];
        struct record *low = first, *high = last;
        while (low <= high) {
            while (compare(low, &pivot) < 0)
                low++;
            while (compare(&pivot, high) < 0)
                high--;
            if (low <= high)
                swap(low++, high--);
        }
        /* The shorter side first, so that the stack stays shallow. */
        if (high - first < last - low) {
            quicksort(first, high, compare);
            first = low;
        } else {
            quicksort(low, last, compare);
            last = high;
        }
    }
    insertion_sort(first, last, compare);
}

static uint32_t round_of_sorts(void)
{
    uint32_t sum = one;

    for (int order = 0; order < 3; order++) {
        for (int i = 0; i < COUNT; i++)
            records[i] = unsorted[i];
        quicksort(records, records + COUNT - 1, orders[order]);
        for (int i = 0; i < COUNT; i++) {
            if (i > 0 && orders[order](&records[i - 1], &records[i]) > 0)
                return 0;
            sum = mix(sum, records[i].key);
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    uint32_t random = 1;

    for (int i = 0; i < COUNT; i++) {
        struct record *record = &unsorted[i];
        record->key = next_random(&random); /* no value comes twice */
        record->weight = next_random(&random) % 100;
        for (int k = 0; k < 8; k++)
            record->label[k] = 'a' + next_random(&random) % 3;
    }
    return run_rounds("quicksort", round_of_sorts, 0x65243b4b, ROUNDS, argc, argv);
}
