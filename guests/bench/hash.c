/*
 * A hash table with strings as keys: insertions, lookups that find and that do not, deletions.
 *
 * Separate chaining over two megabytes of buckets and entries: bytes are hashed and compared, chains are walked.
 */
#include <stddef.h>

#include "kernel.h"

#define ROUNDS 320
#define COUNT 40000
#define BUCKETS (32 * 1024)
#define KEY_SIZE 16

struct entry {
    struct entry *next;
    uint32_t hash;
    uint32_t value;
    char key[KEY_SIZE];
};

static struct entry *buckets[BUCKETS];
static struct entry entries[COUNT];
static struct entry *unused; /* a list of entries */

/* "item-" and a number in base 26 of at least three letters. */
static void write_key(char *key, uint32_t number)
{
    const char *prefix = "item-";

    while (*prefix != '\0')
        *key++ = *prefix++;
    for (int digits = 0; number != 0 || digits < 3; digits++) {
        *key++ = 'a' + number % 26;
        number /= 26;
    }
    *key = '\0';
}

/* FNV-1a. */
static uint32_t hash_of(const char *key)
{
    uint32_t hash = 2166136261u;

    while (*key != '\0')
        hash = (hash ^ (uint8_t)*key++) * 16777619u;
    return hash;
}

static int equal(const char *a, const char *b)
{
    while (*a == *b) {
        if (*a == '\0')
            return 1;
        a++, b++;
    }
    return 0;
}

/* Where the pointer to the key's entry is, or should be. */
static struct entry **find(const char *key, uint32_t hash)
{
    struct entry **place = &buckets[hash % BUCKETS];

    while (*place != NULL && ((*place)->hash != hash || !equal((*place)->key, key)))
        place = &(*place)->next;
    return place;
}

static void insert(const char *key, uint32_t value)
{
    uint32_t hash = hash_of(key);
    struct entry **place = find(key, hash), *entry = *place;

    if (entry == NULL) {
        entry = unused;
        unused = entry->next;
        *place = entry;
        entry->next = NULL;
        entry->hash = hash;
        for (int i = 0; (entry->key[i] = key[i]) != '\0'; i++)
            ;
    }
    entry->value = value;
}

/* The key's value, or 0. */
static uint32_t lookup(const char *key)
{
    const struct entry *entry = *find(key, hash_of(key));

    return entry == NULL ? 0 : entry->value;
}

static void remove_key(const char *key)
{
    struct entry **place = find(key, hash_of(key)), *entry = *place;

    if (entry != NULL) {
        *place = entry->next;
        entry->next = unused;
        unused = entry;
    }
}

static uint32_t round_of_hashing(void)
{
    char key[KEY_SIZE];
    uint32_t sum = one;

    unused = NULL;
    for (int i = 0; i < COUNT; i++) {
        entries[i].next = unused;
        unused = &entries[i];
    }
    for (int i = 0; i < BUCKETS; i++)
        buckets[i] = NULL;

    for (uint32_t i = 0; i < COUNT; i++) {
        write_key(key, i * 977);
        insert(key, i + 1);
    }
    for (uint32_t i = 0; i < COUNT; i += 3) {
        write_key(key, i * 977);
        remove_key(key);
    }
    for (uint32_t i = 1; i < COUNT; i += 2) { /* some are there, some are new */
        write_key(key, i * 977);
        insert(key, i * 3);
    }
    for (uint32_t i = 0; i < 2 * COUNT; i++) { /* more than half are not there */
        write_key(key, i * 977);
        sum = mix(sum, lookup(key));
    }
    return sum;
}

int main(int argc, char **argv)
{
    return run_rounds("hash", round_of_hashing, 0x438deb3f, ROUNDS, argc, argv);
}
