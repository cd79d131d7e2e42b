/*
 * Two sorts through a comparison callback: a hand-written quicksort and the library's qsort().
 *
 * quicksort [count]    sorts `count` records
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record {
    uint16_t key;    /* drawn from a small range, so that many are equal */
    uint16_t weight;
    uint32_t serial; /* position before sorting, makes the order total */
};

typedef int compare_fn(const void *, const void *);

static int by_key(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->serial > y->serial) - (x->serial < y->serial);
}

static int by_weight_descending(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return (x->serial > y->serial) - (x->serial < y->serial);
}

static void swap(struct record *a, struct record *b)
{
    struct record t = *a;
    *a = *b;
    *b = t;
}

/* Hoare's partition around the median of three, the shorter side first so that the stack stays shallow. */
static void quicksort(struct record *first, struct record *last, compare_fn *compare)
{
    while (first < last) {
        struct record *middle = first + (last - first) / 2;
        if (compare(middle, first) < 0)
            swap(middle, first);
        if (compare(last, first) < 0)
            swap(last, first);
        if (compare(last, middle) < 0)
            swap(last, middle);

        struct record pivot = *middle;
        struct record *low = first, *high = last;
        while (low <= high) {
            while (compare(low, &pivot) < 0)
                low++;
            while (compare(high, &pivot) > 0)
                high--;
            if (low <= high)
                swap(low++, high--);
        }
        if (high - first < last - low) {
            quicksort(first, high, compare);
            first = low;
        } else {
            quicksort(low, last, compare);
            last = high;
        }
    }
}

static int is_sorted(const struct record *records, int count, compare_fn *compare)
{
    for (int i = 1; i < count; i++)
        if (compare(&records[i - 1], &records[i]) >= 0)
            return 0;
    return 1;
}

/* Depends on the order of the records. */
static uint32_t checksum(const struct record *records, int count)
{
    uint32_t sum = 0;

    for (int i = 0; i < count; i++)
        sum = (sum << 5 | sum >> 27) ^ (records[i].key + records[i].serial * 2654435761u);
    return sum;
}

static void fill(struct record *records, int count)
{
    uint32_t random = 12345;

    for (int i = 0; i < count; i++) {
        random = random * 1664525 + 1013904223;
        records[i] = (struct record){random >> 24, random >> 8, i};
    }
}

static int sort_both(const char *order, int count, compare_fn *compare)
{
    struct record *ours = malloc(count * sizeof *ours), *theirs = malloc(count * sizeof *theirs);

    if (ours == NULL || theirs == NULL) {
        puts("out of memory");
        return 0;
    }
    fill(ours, count);
    memcpy(theirs, ours, count * sizeof *ours);
    quicksort(ours, ours + count - 1, compare);
    qsort(theirs, count, sizeof *theirs, compare);

    int good = is_sorted(ours, count, compare) && memcmp(ours, theirs, count * sizeof *ours) == 0;
    printf("%d records by %s: first %d/%d, last %d/%d, checksum %08lx\n", count, order, ours[0].key, ours[0].weight,
           ours[count - 1].key, ours[count - 1].weight, (unsigned long)checksum(ours, count));
    free(ours);
    free(theirs);
    return good;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 200;

    if (!sort_both("key", count, by_key) || !sort_both("weight", count, by_weight_descending)) {
        puts("quicksort: wrong");
        return 1;
    }
    puts("quicksort: ok");
    return 0;
}
