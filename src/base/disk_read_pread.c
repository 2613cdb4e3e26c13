/* The engine that works everywhere: one thread for each block that may be on its way, waiting in pread. */
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/disk_read_impl.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

enum { STACK_BYTES = 256 << 10 };

/* Both lists have room for depth entries: a block is in one of them, or with a thread. */
typedef struct {
    disk_engine_options o;
    pthread_mutex_t mutex;
    pthread_cond_t work, ended;
    disk_piece *todo;
    disk_result *done;
    unsigned first, n_todo, n_done;
    bool stop, woken;
    pthread_t *thread;
    unsigned n_threads;
} pread_pool;

static void be_idle(void)
{
#if defined(__linux__) && defined(SYS_ioprio_set) &&                                                         \
    !defined(__ANDROID__) /* whose filter may end the process */
    enum { THIS_THREAD = 1 /* IOPRIO_WHO_PROCESS, of pid 0 */ };
    syscall(SYS_ioprio_set, THIS_THREAD, 0, DISK_IDLE_CLASS);
#endif
}

static void *work(void *arg)
{
    pread_pool *p = arg;

    if (p->o.idle) be_idle();
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        disk_piece piece;
        ssize_t got;
        while (!p->n_todo && !p->stop) pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop) break;
        piece = p->todo[p->first];
        p->first = (p->first + 1) % p->o.depth;
        p->n_todo--;
        pthread_mutex_unlock(&p->mutex);
        got = pread(p->o.fd, piece.dst, piece.n, (off_t)piece.at);
        if (got < 0) got = -errno;
        pthread_mutex_lock(&p->mutex);
        p->done[p->n_done++] = (disk_result){piece.block, (int)got};
        pthread_cond_signal(&p->ended);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void start(void *engine, const disk_piece *piece)
{
    pread_pool *p = engine;

    pthread_mutex_lock(&p->mutex);
    p->todo[(p->first + p->n_todo++) % p->o.depth] = *piece;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

static void kick(void *engine)
{
    (void)engine; /* threads begin by themselves */
}

static size_t reap(void *engine, disk_result *out, size_t max, uint64_t deadline_ns)
{
    pread_pool *p = engine;
    size_t n = 0;

    pthread_mutex_lock(&p->mutex);
    while (!p->n_done && !p->woken && cond_wait_until(&p->ended, &p->mutex, deadline_ns)) {}
    p->woken = false;
    while (n < max && p->n_done) out[n++] = p->done[--p->n_done];
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static void wake(void *engine)
{
    pread_pool *p = engine;

    pthread_mutex_lock(&p->mutex);
    p->woken = true;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->mutex);
}

static void free_pool(void *engine)
{
    pread_pool *p = engine;

    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_threads; i++) pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->ended);
    pthread_mutex_destroy(&p->mutex);
    free(p->todo);
    free(p->done);
    free(p->thread);
    free(p);
}

/* Signals are for the threads of others. Where there may be no more threads, fewer do. */
static void start_threads(pread_pool *p)
{
    pthread_attr_t attr;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (p->n_threads < p->o.depth && !pthread_create(&p->thread[p->n_threads], &attr, work, p))
        p->n_threads++;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static const disk_engine pread_engine = {DISK_READ_PREAD, start, kick, reap, wake, free_pool};

const disk_engine *disk_pread_new(void **out, const disk_engine_options *o, char *why, size_t n)
{
    pread_pool *p = calloc(1, sizeof *p);

    if (!p) return NULL;
    p->o = *o;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    cond_init(&p->ended);
    p->todo = calloc(o->depth, sizeof *p->todo);
    p->done = calloc(o->depth, sizeof *p->done);
    p->thread = calloc(o->depth, sizeof *p->thread);
    if (p->todo && p->done && p->thread) start_threads(p);
    if (!p->n_threads) {
        snprintf(why, n, "no thread can be started to read");
        free_pool(p);
        return NULL;
    }
    *out = p;
    return &pread_engine;
}
