/* The list of maps is only added to: a signal handler walks it without a lock. Places are used again. */
#include "src/base/mapped.h"
#include "src/base/err.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct map map;
struct map {
    map *next;
    _Atomic(uintptr_t) begin; /* 0: a place that is free */
    size_t n;
    char *path;
};

static _Atomic(map *) maps;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of those who change the list */
static struct sigaction before;

static void say(const char *text)
{
    ssize_t done = write(STDERR_FILENO, text, strlen(text));

    (void)done; /* there is nobody left to tell */
}

/* Only what POSIX allows in a signal handler. */
static void end(const map *m)
{
    struct stat st;
    int is_shorter = stat(m->path, &st) || st.st_size < 0 || (uintmax_t)st.st_size < m->n;

    say("prima: ");
    say(m->path);
    say(is_shorter
            ? ": the file has become shorter while it was in use: was it replaced, or is it still being "
              "copied or downloaded? Bring the whole file back and start again\n"
            : ": its disk does not give the bytes (see the system's log)\n");
    _exit(is_shorter ? -PR_EINTEGRITY : -PR_ERESOURCE);
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;

    (void)context;
    for (const map *m = maps; m; m = m->next) {
        uintptr_t begin = m->begin;
        if (begin && at >= begin && at - begin < m->n) end(m);
    }
    sigaction(sig, &before, NULL); /* not ours: the read fails again when this returns */
}

static void catch_bus_errors(void)
{
    struct sigaction a = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, &before);
}

static map *free_place(void)
{
    map *m = maps;

    while (m && m->begin) m = m->next;
    if (m || !(m = calloc(1, sizeof *m))) return m;
    if (!maps) catch_bus_errors();
    m->next = maps;
    maps = m;
    return m;
}

void mapped_watch(const void *p, size_t n, const char *path)
{
    char *copy = strdup(path);
    map *m = NULL;

    pthread_mutex_lock(&mutex);
    if (copy && (m = free_place())) {
        free(m->path);
        m->path = copy;
        m->n = n;
        m->begin = (uintptr_t)p; /* last: now it counts */
    }
    pthread_mutex_unlock(&mutex);
    if (!m) free(copy);
}

void mapped_forget(const void *p)
{
    pthread_mutex_lock(&mutex);
    for (map *m = maps; m; m = m->next)
        if (m->begin == (uintptr_t)p) m->begin = 0;
    pthread_mutex_unlock(&mutex);
}
