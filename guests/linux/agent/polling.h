/* What the agent waits for: a list that is made anew each time. */
#ifndef POLLING_H
#define POLLING_H

#include <stdint.h>

#define POLLED_MOST 300

/* Begin a new list. */
void watch_nothing(void);
/* Wait for events of a file too, unless that is -1. */
void watch(int file, int16_t events);
/* Wait. Return a negative error number if a signal has come. */
long wait_for_any(void);
/* Whether one of these events, an error or an end has come at a file. */
int has(int file, int16_t events);
/* Whether reading a file returns at once. */
int is_readable(int file);

#endif
