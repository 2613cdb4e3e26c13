/* A program that we start: what we write is its standard input, what it prints comes back line by line.
 *
 * It has a process group of its own, so that Ctrl-C at our terminal is for us to act on, and so that whatever
 * it starts can be ended with it. Its standard input ends when we do, however we die: no other signal is
 * needed (Linux's PR_SET_PDEATHSIG would fire when the thread that started it ends). */
#ifndef PRIMA_RUN_CHILD_H
#define PRIMA_RUN_CHILD_H
#include "src/base/err.h"
#include <stdbool.h>

enum { CHILD_LINE_BYTES = 1024 };

/* A line without its end, cut to CHILD_LINE_BYTES - 1 bytes (then it ends in "..."), never empty; NUL bytes
 * are shown as '?'. Called by a thread of the child's, one line after another. */
typedef void (*child_line_fn)(void *arg, bool is_stderr, const char *line);

typedef struct {
    bool running;
    int status; /* of exit; -1: a signal ended it */
    int signal;
} child_state;

typedef struct child child;
/* argv[0] is looked for in PATH when it has no slash; NULL ends argv. PR_EUSAGE: there is no such program;
 * PR_ERESOURCE. */
int child_start(child **out, const char *const argv[], child_line_fn line, void *arg, pr_err *err);
int child_input(const child *c); /* the descriptor to write to */
child_state child_look(const child *c);

/* Ends its input and waits grace_s for it to leave, then SIGTERM, then SIGKILL, for all of its group. All its
 * lines have been given out when this returns. Twice is fine. */
child_state child_stop(child *c, double grace_s);
void child_free(child *c); /* stops it at once if it still runs; NULL is fine */

#endif
