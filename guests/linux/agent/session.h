/*
 * A session is one program. PREPARE brings a piece of its request. START forks a process that carries the request out.
 * An item that cannot be carried out ends the session with FAILED. The program's streams are pipes, or a terminal.
 */
#ifndef SESSION_H
#define SESSION_H

#include "frames.h"

/* Do what a frame for a session says. */
void obey_session(const struct header *frame, const uint8_t *data);
/* Answer a host that looks for its place in what comes, and does not know what there is: with the bytes that it has sent,
 * the status of session 0 if that has ended, and the sessions. */
void send_sessions(const uint8_t *sign, uint32_t size);
/* Add what sessions wait for to the list of what is polled. */
void watch_sessions(void);
/* Do what can be done now that polling has returned. */
void serve_sessions(void);
/* Take the statuses of processes that have ended. */
void bury(void);
/* How many sessions there are. */
uint32_t sessions_in_use(void);

#endif
