/* What a session's process is: its namespaces, user and rights. All return 0 or more, or an error number. */
#ifndef PROCESSES_H
#define PROCESSES_H

#include <stdint.h>
#include "request.h"

/* Enter namespaces of a process, whose kinds are flags of clone(2). */
long enter_namespaces(uint32_t pid, uint32_t kinds);
/* Lead a session of processes, to which the session's terminal belongs, if it has one. */
void lead_session(const struct carrier *carrier);
/* Go on in a child, of which the agent is told as the session's process. */
long fork_into(const struct carrier *carrier);
/* Keep only these capabilities, whatever is executed. */
long bound_capabilities(uint64_t kept);
/* Become a user of /etc/passwd, "user:group". `*home` is the home directory then. */
long become_user(char *user, const char *end, const char **home);
/* Fork, and let the child go on. PID 1 passes signals on to it, buries orphans, and ends as it ends. */
long stay_as_init(void);

#endif
